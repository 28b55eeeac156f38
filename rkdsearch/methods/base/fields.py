"""Types of the hyperparameters that many methods share: one name, one law, one meaning."""

from typing import Annotated, Literal

from pydantic import Field

Weight = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(ge=0)]
Temperature = Annotated[float, Field(gt=0, le=1000, description="softening of both distributions")]
KLScale = Annotated[
    float,
    Field(
        gt=0,
        description=(
            "factor on every KL term: 1 = sum over classes; released scripts use 1/K and 10/K"
        ),
    ),
]
WarmUp = Annotated[
    float, Field(ge=0, lt=1, description="fraction of the run before the method proper begins")
]
Parity = Annotated[
    Literal["paper", "official"],
    Field(
        description="where they differ: the paper's equation, or the released script's arithmetic"
    ),
]
