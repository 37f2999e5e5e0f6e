"""The shop in the admin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin

from .models import GatewayCharge, Order, Product

if TYPE_CHECKING:
    ProductAdminBase = admin.ModelAdmin[Product]
    OrderAdminBase = admin.ModelAdmin[Order]
    ChargeAdminBase = admin.ModelAdmin[GatewayCharge]
else:
    ProductAdminBase = OrderAdminBase = ChargeAdminBase = admin.ModelAdmin


@admin.register(Product)
class ProductAdmin(ProductAdminBase):
    list_display = ["name", "cents"]
    search_fields = ["name"]


@admin.register(Order)
class OrderAdmin(OrderAdminBase):
    list_display = ["id", "product", "quantity", "dollars", "card", "status", "note", "placed_at"]
    list_filter = ["status", "card"]
    list_select_related = ["product"]
    search_fields = ["email", "receipt", "tracking"]
    readonly_fields = ["cents", "status", "note", "receipt", "tracking", "placed_at"]  # its workflow writes these


@admin.register(GatewayCharge)
class GatewayChargeAdmin(ChargeAdminBase):
    list_display = ["key", "state", "cents", "attempts"]
    list_filter = ["state"]
    readonly_fields = ["key", "state", "cents", "attempts"]
