"""Put something on the shelves, so that the shop can be tried at once."""

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

PRODUCTS = {"Teapot": 24_00, "Desk lamp": 79_00, "Bookshelf": 189_00, "Coffee machine": 649_00, "Sofa": 1_290_00}


def add_products(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    product = apps.get_model("orders", "Product")
    product.objects.bulk_create(product(name=name, cents=cents) for name, cents in PRODUCTS.items())


class Migration(migrations.Migration):
    dependencies = [("orders", "0001_initial")]

    operations = [migrations.RunPython(add_products, migrations.RunPython.noop)]
