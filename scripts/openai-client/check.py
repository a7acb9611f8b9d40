"""What a program that uses the official OpenAI client sees of `bitai-miner serve`: the address and the key come from
OPENAI_BASE_URL and OPENAI_API_KEY, as everywhere. Each function is one check; the first that fails ends the run."""

import concurrent.futures
import re
import sys

import openai

CHAT = "smollm2"
ENCODER = "minilm"
QUESTION = [
    {"role": "system", "content": "Answer in one short sentence."},
    {"role": "user", "content": "Name three colours of the sea."},
]
ROOT = re.compile(r"0x[0-9a-f]{64}")

client = openai.OpenAI(max_retries=0, timeout=300)


def refused(kind, call, code, words):
    """The client's exception of this kind, with our code and words."""
    try:
        call()
    except kind as error:
        assert error.code == code, (error.code, error)
        assert words in str(error), error
        return error
    raise AssertionError(f"not refused: {words}")


def ask(**change):
    options = {"model": CHAT, "messages": QUESTION, "max_tokens": 24, "temperature": 0} | change
    return client.chat.completions.create(**options)


def models():
    names = [m.id for m in client.models.list()]
    assert CHAT in names, names
    assert ROOT.fullmatch(client.models.retrieve(CHAT).bitai["model_root"])
    return f"{', '.join(names)}"


def chat():
    raw = client.chat.completions.with_raw_response.create(
        model=CHAT, messages=QUESTION, max_completion_tokens=24, temperature=0
    )
    reply = raw.parse()
    choice = reply.choices[0]
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert ROOT.fullmatch(reply.bitai["trace_root"])
    assert raw.headers["x-bitai-trace-root"] == reply.bitai["trace_root"]
    assert reply.bitai["settlement"]["state"] == "unsettled"
    assert ask().bitai["trace_root"] == reply.bitai["trace_root"], "the same question is the same job"
    return f"{choice.message.content!r} {reply.bitai['trace_root']}"


def chat_streams():
    whole = ask()
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content, (text, whole)
    assert sum(bool(c.choices and c.choices[0].delta.content) for c in chunks) > 1, "in pieces"
    assert chunks[-1].usage == whole.usage and not chunks[-1].choices
    assert chunks[-2].bitai["trace_root"] == whole.bitai["trace_root"]
    with client.chat.completions.stream(model=CHAT, messages=QUESTION, max_tokens=24, temperature=0) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == text
    return f"{len(chunks)} chunks"


def choices_and_seeds():
    reply = ask(n=3, temperature=0.9, top_p=0.95, seed=7, extra_body={"top_k": 50})
    roots = [c.bitai["trace_root"] for c in reply.choices]
    assert len(set(roots)) == 3, roots
    again = ask(temperature=0.9, top_p=0.95, seed=8, extra_body={"top_k": 50})
    assert again.choices[0].message.content == reply.choices[1].message.content
    assert again.bitai["trace_root"] == roots[1], "choice i is the job with seed + i"
    return "3 choices"


def stops():
    text = ask().choices[0].message.content
    word = text.split()[2]
    reply = ask(stop=[word])
    assert reply.choices[0].message.content == text[: text.index(word)], reply
    assert reply.choices[0].finish_reason == "stop"
    assert reply.bitai["max_new"] == reply.usage.completion_tokens, "the job that is proven ends there"
    shorter = ask(max_tokens=reply.usage.completion_tokens)
    assert shorter.bitai["trace_root"] == reply.bitai["trace_root"]
    return f"before {word!r}"


def completions():
    reply = client.completions.create(model=CHAT, prompt="The sea is", max_tokens=8, temperature=0)
    assert reply.object == "text_completion" and reply.choices[0].text
    pieces = client.completions.create(model=CHAT, prompt="The sea is", max_tokens=8, temperature=0, stream=True)
    assert "".join(p.choices[0].text for p in pieces) == reply.choices[0].text
    return repr(reply.choices[0].text)


def characters_come_whole():
    pieces = [c.choices[0].delta.content or "" for c in ask(
        messages=[{"role": "user", "content": "Repeat exactly: 🦀🌊 привет 日本 é"}], stream=True, max_tokens=40)]
    text = "".join(pieces)
    assert all("\ufffd" not in p for p in pieces[:-2]), pieces
    return repr(text)


def side_by_side():
    def one(seed):
        return ask(temperature=1, seed=seed, max_tokens=16).bitai["trace_root"]

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        together = list(pool.map(one, range(3)))
    assert together[1] == one(1), "an answer does not depend on its company"
    return "3 requests"


def a_client_that_leaves():
    stream = ask(stream=True, max_tokens=1500, messages=[{"role": "user", "content": "Count to a thousand."}])
    next(iter(stream))
    stream.close()
    return ask(max_tokens=2).usage.total_tokens


def errors():
    refused(openai.NotFoundError, lambda: ask(model="gpt-9"), "model_not_found", CHAT)
    refused(openai.BadRequestError, lambda: ask(max_tokens=10**6), "context_length_exceeded", "context")
    refused(openai.BadRequestError, lambda: ask(logprobs=True), "unsupported_parameter", "logprobs")
    error = refused(openai.BadRequestError, lambda: ask(temperature=99), "invalid_value", "temperature")
    assert error.param == "temperature" and error.type == "invalid_request_error"
    refused(openai.BadRequestError, lambda: ask(n=9), "invalid_value", "`n`")
    stranger = openai.OpenAI(api_key="wrong-key-of-some-length", max_retries=0)
    refused(openai.AuthenticationError, stranger.models.list, "invalid_api_key", "wrong API key")
    return "6 refusals"


def embeddings():
    if ENCODER not in [m.id for m in client.models.list()]:
        return "left out: no MiniLM here (scripts/fetch-model minilm)"
    # The client asks for base64 by itself and unpacks it.
    reply = client.embeddings.create(model=ENCODER, input=["the sea", "the ocean", "a spreadsheet"])
    packed = [d.embedding for d in reply.data]
    plain = client.embeddings.create(
        model=ENCODER, input=["the sea", "the ocean", "a spreadsheet"], encoding_format="float"
    )
    for one, other in zip(packed, (d.embedding for d in plain.data), strict=True):
        assert len(one) == 384 and max(abs(a - b) for a, b in zip(one, other, strict=True)) < 1e-6

    def alike(a, b):
        dot = sum(x * y for x, y in zip(a, b))
        return dot / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5

    near, far = alike(packed[0], packed[1]), alike(packed[0], packed[2])
    assert near > far, (near, far)
    assert ROOT.fullmatch(reply.data[2].bitai["trace_root"])
    refused(
        openai.BadRequestError,
        lambda: client.embeddings.create(model=ENCODER, input="a", dimensions=8),
        "unsupported_parameter",
        "dimensions",
    )
    return f"sea and ocean {near:.3f}, sea and spreadsheet {far:.3f}"


def main():
    checks = [models, chat, chat_streams, choices_and_seeds, stops, completions, characters_come_whole, side_by_side,
              a_client_that_leaves, errors, embeddings]
    for check in checks:
        try:
            said = check()
        except Exception:
            print(f"FAILED  {check.__name__}", file=sys.stderr)
            raise
        print(f"ok  {check.__name__:<24} {said}", flush=True)
    print(f"openai {openai.__version__}: {len(checks)} checks passed")


main()
