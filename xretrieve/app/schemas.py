"""What is sent and what is answered, as OpenAPI shows it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, create_model

from xretrieve.app.settings import Settings

Value = str | int | float | bool
Where = Annotated[
    dict[str, Value | list[Value]],
    Field(description='Metadata that hits must have, such as {"split": "test"}; of a list, any value.', max_length=20),
]
Id = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class Strict(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """What was wrong."""

    error: str = Field(description="One plain sentence.")


class Found(BaseModel):
    """One result."""

    rank: int
    id: str
    score: float
    exact: bool = Field(description="False where only the coarse vectors scored it.")
    picture: bool = Field(description="Whether /api/pictures has a picture of it.")
    metadata: dict[str, Any]


class Results(BaseModel):
    """What was found, best first."""

    texts: list[str]
    hits: list[Found]
    note: str = Field(description="What the reader should know; empty when nothing.")
    weak: bool = Field(description="No result fits as well as those of nearly every validation query.")
    share: float | None = Field(description="Share of the pictures that the model scored in full, where it says so.")
    revision: int = Field(description="Of the index that gave all of this answer.")
    seconds: float = Field(description="From the request's arrival to its answer.")


class SessionState(BaseModel):
    """An open session."""

    session: str = Field(description="Its name, for the other calls.")
    texts: list[str] = Field(description="The sentences so far.")
    seconds_left: float = Field(description="It is dropped when it is not used for so long.")


class Part(BaseModel):
    """One text or picture of the query, and how well the picture answers it alone."""

    model_config = ConfigDict(extra="allow")
    kind: Literal["text", "image"]
    text: str | None = None
    score: float
    weight: float | None = Field(None, description="Its share in a query of picture and text.")


class Layout(BaseModel):
    """Where the regions lie, in shares of the picture: a grid over an area, or boxes (left, top, right, bottom)."""

    grid: tuple[int, int] | None
    area: tuple[float, float, float, float] | None
    boxes: list[tuple[float, float, float, float]] | None


class Stream(BaseModel):
    """Who looks at whom: t2i, a row per word over the regions; i2t, a row per region over the words."""

    weights: list[list[float]]
    match: list[float]


class Attention(BaseModel):
    """Words (or sentences) and regions; as `attention` of `xretrieve explain`."""

    of: str
    words: list[str]
    regions: int
    layout: Layout | None
    streams: dict[str, Stream]
    map: dict[str, list[float]]


class Explanation(BaseModel):
    """Why a picture answers a query as it does."""

    id: str
    parts: list[Part]
    attention: Attention | None = None
    levels: dict[str, dict[str, float]] | None = None


class Limits(BaseModel):
    """What one request may ask for."""

    texts: int
    text: int
    k: int
    rerank: int
    body: int
    pixels: int


class Info(BaseModel):
    """What is searched, and with what."""

    name: str
    pictures: int
    matcher: str
    coarse: str | None = Field(description="Where candidates come from: another model's name, head, or none.")
    regions: bool = Field(description="Whether pictures are compared region by region.")
    version: str
    limits: Limits


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok", "stale"] = Field(
        description="stale: the index on the disk was changed and could not be read; answers are those of before."
    )
    pictures: int
    revision: int = Field(description="Of the index; it grows with every change.")
    waiting: int = Field(description="Requests that wait or are worked on.")
    lanes: dict[str, int] = Field(description="The same, by the kind of work.")
    limits: dict[str, int | float] = Field(
        description="What the server was started with; docs/serve.md says what they mean."
    )
    problem: str | None = Field(default=None, description="Why the changed index could not be read.")


def bodies(settings: Settings) -> tuple[type[Any], type[Any], type[Any], type[Any]]:
    """The bodies of a search, an explanation, a new session and a sentence, with the server's limits in them."""
    text = Annotated[str, StringConstraints(min_length=1, max_length=settings.max_text, pattern=r"\S")]
    texts = Annotated[
        list[text],  # type: ignore[valid-type]
        Field(max_length=settings.max_texts, description="What the picture shows; several are details of one picture."),
    ]
    image = Annotated[Id | None, Field(description="The id of an indexed picture to start from.")]
    most = 4 * settings.max_body // 3
    picture = Annotated[
        str | None, Field(max_length=most, description="A picture to start from: the bytes of its file in base64.")
    ]
    rerank = Annotated[
        Annotated[int, Field(ge=0, le=settings.max_rerank)] | Literal["all", "auto"] | None,
        Field(description="Candidates that the model scores region by region, for models that do."),
    ]
    blend = Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        Field(description="Share of the model's score in that of a re-ranked result; the rest is the first stage's."),
    ]
    query: dict[str, Any] = {"texts": (texts, []), "image": (image, None), "picture": (picture, None)}
    search = create_model(
        "Search", __base__=Strict, **query,
        k=(Annotated[int, Field(ge=1, le=settings.max_k)], 10),
        rerank=(rerank, None),
        blend=(blend, None),
        where=(Where | None, None),
        drop_reference=(Annotated[
            bool | None, Field(description="Leave the query's own picture out; by default where there is a text too.")
        ], None),
    )  # fmt: skip
    explain = create_model("Explain", __base__=Strict, id=(Id, ...), **query)
    session = create_model(
        "NewSession", __base__=Strict,
        combine=(Literal["", "head", "mean_similarity", "rank_fusion", "paragraph"], ""), where=(Where | None, None),
    )  # fmt: skip
    sentence = create_model("Sentence", __base__=Strict, text=(text, ...))
    return search, explain, session, sentence
