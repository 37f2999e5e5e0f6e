"""The form that uploads a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.files.uploadedfile import UploadedFile

from .models import ImportJob

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[ImportJob]
else:
    ModelForm = forms.ModelForm

MOST_BYTES = 5 * 1024 * 1024


class UploadForm(ModelForm):
    """A file and the pace of its import; what is in the file is checked by the workflow."""

    class Meta:
        model = ImportJob
        fields = ["file", "pause"]

    def clean_file(self) -> UploadedFile[Any]:
        file: UploadedFile[Any] = self.cleaned_data["file"]
        if file.size is None or file.size > MOST_BYTES:
            raise forms.ValidationError(f"Expected a file of at most {MOST_BYTES // 1024 // 1024} MB; split it.")
        return file
