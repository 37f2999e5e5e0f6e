"""The shop at the root, the airports beside it, the admin where everyone looks for it."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

admin.site.site_header = "Example shop"
admin.site.site_title = "Example shop"

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="orders:list"), name="home"),
    path("orders/", include("example_project.orders.urls")),
    path("airports/", include("example_project.imports.urls")),
    path("admin/", admin.site.urls),
]
