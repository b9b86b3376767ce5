"""BERT as a program of the nncc language."""

from __future__ import annotations

from examples.networks.program import Program, Value

TOKENS, WIDTH, HEADS, LAYERS, INNER = 128, 768, 12, 12, 3072
WORDS, POSITIONS, TYPES = 30522, 512, 2
HEAD_WIDTH = WIDTH // HEADS
COMMENT = """BERT-base, uncased
Devlin et al.: BERT (2018); random weights. One sequence of 128 tokens.
Written by generate.py of this folder."""


def bert_base() -> str:
    """Twelve layers of attention and a network of two matrices; the mask is 1 for real tokens."""
    ids = f"i64[1,{TOKENS}]"
    inputs = f"input_ids: {ids}, attention_mask: {ids}, token_type_ids: {ids}"
    p = Program("bert_base", inputs, COMMENT)
    for name, type, value in (
        ("first", "i64[1]", "[0]"),
        ("end", "i64[1]", f"[{TOKENS}]"),
        ("position", "i64[]", "0"),
        ("mask.shape", "i64[4]", f"[1, 1, 1, {TOKENS}]"),
        ("split", "i64[4]", f"[1, {TOKENS}, {HEADS}, {HEAD_WIDTH}]"),
        ("joined", "i64[3]", f"[1, {TOKENS}, {WIDTH}]"),
        ("seen", "f32[]", "0.0"),
        ("hidden", "f32[]", "-3.4028235e+38"),
        ("scale", "f32[]", str(HEAD_WIDTH**-0.5)),
        ("sqrt2", "f32[]", "1.4142135"),
        ("one", "f32[]", "1.0"),
        ("half", "f32[]", "0.5"),
    ):
        p.const(name, type, value)
    x = embeddings(p)
    p.op("mask.row", "Reshape", p.op("mask.bool", "Cast", "attention_mask", attrs="to=bool"),
         "mask.shape")  # fmt: skip
    mask = p.op("mask", "Where", "mask.row", "seen", "hidden")
    for layer in range(LAYERS):
        p.heading(f"layer {layer}")
        last = layer == LAYERS - 1
        x = encoder(p, f"encoder.{layer}", x, mask, "last_hidden_state" if last else "")
    p.heading("pooler")
    cls = p.op("pooler.token", "Gather", x, "position", attrs="axis=1")
    p.op("pooled", "Tanh", p.linear("pooler.dense", cls, WIDTH))
    return p.text(f"last_hidden_state: f32[1,{TOKENS},{WIDTH}], pooled: f32[1,{WIDTH}]")


def embeddings(p: Program) -> Value:
    """The sum of what stands for the word, its type and its position."""
    tables = {
        kind: p.param(f"embeddings.{kind}.weight", (rows, WIDTH), 0.02)
        for kind, rows in (("word", WORDS), ("type", TYPES), ("position", POSITIONS))
    }
    word = p.op("embeddings.word", "Gather", tables["word"], "input_ids", features=WIDTH)
    kind = p.op("embeddings.type", "Gather", tables["type"], "token_type_ids", features=WIDTH)
    place = p.op("embeddings.position", "Slice", tables["position"], "first", "end", "first")
    both = p.op("embeddings.both", "Add", word, kind)
    return layer_norm(p, "embeddings.norm", p.op("embeddings.sum", "Add", both, place))


def encoder(p: Program, at: str, x: Value, mask: Value, result: str) -> Value:
    """One layer; its value is called `result`, or after the layer."""
    mixed = attention(p, f"{at}.attention", x, mask)
    x = layer_norm(p, f"{at}.attention.norm", p.op(f"{at}.attention.add", "Add", mixed, x))
    y = gelu(p, dense(p, f"{at}.intermediate", x, INNER, gain=2.0))
    y = p.op(f"{at}.add", "Add", dense(p, f"{at}.output", y, WIDTH), x)
    return layer_norm(p, f"{at}.norm", y, result)


def attention(p: Program, at: str, x: Value, mask: Value) -> Value:
    """softmax(q k^T / sqrt(d) + mask) v in each head, and the projection."""

    def head(name: str, axes: str) -> Value:
        y = p.op(f"{at}.{name}.split", "Reshape", dense(p, f"{at}.{name}", x, WIDTH), "split")
        return p.op(f"{at}.{name}.heads", "Transpose", y, attrs=f"perm={axes}")

    q, k, v = head("query", "[0,2,1,3]"), head("key", "[0,2,3,1]"), head("value", "[0,2,1,3]")
    scores = p.op(f"{at}.scaled", "Mul", p.op(f"{at}.scores", "MatMul", q, k), "scale")
    weights = p.op(f"{at}.softmax", "Softmax", p.op(f"{at}.masked", "Add", scores, mask))
    mixed = p.op(f"{at}.mixed", "MatMul", weights, v)
    rows = p.op(f"{at}.rows", "Transpose", mixed, attrs="perm=[0,2,1,3]")
    return dense(p, f"{at}.output", p.op(f"{at}.joined", "Reshape", rows, "joined",
                 features=WIDTH), WIDTH)  # fmt: skip


def dense(p: Program, name: str, x: Value, features: int, gain: float = 1.0) -> Value:
    """x w + b over the last axis."""
    weight = p.param(f"{name}.weight", (x.features, features), (gain / x.features) ** 0.5)
    bias = p.param(f"{name}.bias", (features,), 0.05)
    product = p.op(f"{name}.product", "MatMul", x, weight, features=features)
    return p.op(name, "Add", product, bias)


def layer_norm(p: Program, name: str, x: Value, result: str = "") -> Value:
    """Normalization over the last axis."""
    scale = p.param(f"{name}.weight", (WIDTH,), 0.02, mean=1.0)
    shift = p.param(f"{name}.bias", (WIDTH,), 0.02)
    return p.op(
        result or name, "LayerNormalization", x, scale, shift, attrs="epsilon=1e-12",
        features=WIDTH,
    )  # fmt: skip


def gelu(p: Program, x: Value) -> Value:
    """x/2 * (1 + erf(x / sqrt 2)), in the single ops that exporters write."""
    at = x.name
    erf = p.op(f"{at}.erf", "Erf", p.op(f"{at}.over_sqrt2", "Div", x, "sqrt2"))
    share = p.op(f"{at}.share", "Mul", p.op(f"{at}.erf1", "Add", erf, "one"), "half")
    return p.op(f"{at}.gelu", "Mul", x, share)
