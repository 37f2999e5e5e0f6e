"""The form that places an order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms

from .models import Order

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[Order]
else:
    ModelForm = forms.ModelForm

MOST_CENTS = 10_000_000_00


class OrderForm(ModelForm):
    """What the customer fills in; the total is computed here, not sent by the browser."""

    class Meta:
        model = Order
        fields = ["product", "quantity", "email", "card"]

    def clean(self) -> dict[str, Any]:
        super().clean()
        product = self.cleaned_data.get("product")
        quantity = self.cleaned_data.get("quantity")
        if product and quantity:
            self.instance.cents = product.cents * quantity
            if self.instance.cents > MOST_CENTS:
                raise forms.ValidationError(f"One order may cost at most ${MOST_CENTS // 100:,}; order fewer.")
        return self.cleaned_data
