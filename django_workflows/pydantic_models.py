"""Models of pydantic as values. Whoever has one has imported pydantic; nothing here does."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

__all__ = ["decode_pydantic", "encode_pydantic", "is_pydantic_model"]


def is_pydantic_model(cls: type) -> bool:
    """Tell whether a class is a pydantic model."""
    base = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    return base is not None and issubclass(cls, base)


def encode_pydantic(value: Any) -> object:
    """Dump a model by the names of its fields, without what it computes: that is what `decode_pydantic` takes."""
    return value.model_dump(mode="json", by_alias=False, round_trip=True)


def decode_pydantic(cls: Any, data: Any) -> Any:
    """Validate JSON data as a model; raises ValueError with the fields at fault."""
    try:
        # As JSON, because strict models take a date from JSON text but not from a str.
        return cls.model_validate_json(msgspec.json.encode(data), by_alias=False, by_name=True)
    except sys.modules["pydantic"].ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        lines = [f"{'.'.join(map(str, problem['loc'])) or cls.__name__}: {problem['msg']}" for problem in problems]
        raise ValueError("; ".join(lines)) from error
