"""Base class and number types of a recipe's sections."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(gt=0, le=1)]


Count = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def check_sums_to_one(key: str, shares: dict[Any, float]) -> None:
    """Raises ValueError, as pydantic expects of a validator, where the shares do not sum to 1."""
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"{key}: the shares sum to {sum(shares.values()):g}, not 1")
