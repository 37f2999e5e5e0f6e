"""The pages of airports and imports."""

from django.urls import path

from . import views

app_name = "imports"
urlpatterns = [
    path("", views.airport_list, name="airports"),
    path("sample.csv", views.sample, name="sample"),
    path("imports/", views.job_list, name="jobs"),
    path("imports/new/", views.upload, name="upload"),
    path("imports/<int:pk>/", views.job, name="job"),
    path("imports/<int:pk>/decide/", views.decide, name="decide"),
    path("imports/<int:pk>/cancel/", views.cancel, name="cancel"),
]
