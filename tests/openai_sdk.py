"""The OpenAI Python SDK as a client: openai_sdk.py PORT. Prints lines that tests/run.sh counts."""

import sys
import time
import traceback

import openai

HELLO = [{"role": "user", "content": "hello"}]
URL = f"http://127.0.0.1:{sys.argv[1]}/v1"
client = openai.OpenAI(base_url=URL, api_key="not-needed", max_retries=0, timeout=30)


def create(**fields):
    return client.chat.completions.create(model="any", messages=HELLO, **fields)


def expect(error, **fields):
    try:
        create(**fields)
    except error as e:
        return e
    raise AssertionError(f"no {error.__name__}")


def sdk_models():
    models = client.models.list().data
    assert [m.id for m in models] == ["tiny-model"], models
    assert client.models.retrieve("tiny-model").object == "model"
    try:
        client.models.retrieve("other")
        raise AssertionError("a model that is not there")
    except openai.NotFoundError as e:
        assert e.status_code == 404


def sdk_whole_answer():
    answer = create(max_tokens=6, temperature=0)
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and choice.message.role == "assistant"
    assert choice.message.content and choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 6
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 6


def sdk_stream_says_the_same():
    whole = create(max_tokens=12, temperature=0).choices[0].message.content
    chunks = list(create(max_tokens=12, temperature=0, stream=True,
                         stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole, (text, whole)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {c.id for c in chunks} == {chunks[0].id} and chunks[0].id.startswith("chatcmpl-")
    assert {c.created for c in chunks} == {chunks[0].created}
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert not chunks[-1].choices and chunks[-1].usage.completion_tokens == 12
    assert all(c.usage is None for c in chunks[:-1])


def sdk_stop_strings():
    whole = create(max_tokens=12, temperature=0).choices[0].message.content
    cut = create(max_tokens=12, temperature=0, stop=[whole[3]]).choices[0]
    assert cut.finish_reason == "stop" and cut.message.content == whole[: whole.index(whole[3])]


def sdk_steering():
    answer = create(max_tokens=4, extra_body={"steering": {"strength": -3}, "gauge": True})
    gauges = answer.model_extra["gauge"]
    assert gauges and all(g["strength"] == -3 for g in gauges), gauges
    chunks = create(max_tokens=4, stream=True,
                    extra_body={"steering": {"strength": 2, "vector": "vector"}, "gauge": True})
    gauges = [c.model_extra["gauge"] for c in chunks if c.choices]
    assert any(gauges) and all(g["strength"] == 2 for g in gauges if g), gauges


def sdk_errors():
    assert "temperature" in expect(openai.BadRequestError, temperature=-1).message
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    assert "does not support tools" in str(expect(openai.BadRequestError, tools=tools))
    assert expect(openai.BadRequestError, temperature=-1, stream=True).type == \
        "invalid_request_error"
    expect(openai.BadRequestError, extra_body={"steering": {"vector": "../vector"}})


def sdk_abort():
    for n in range(20):
        stream = create(stream=True, temperature=0)
        for i, _ in enumerate(stream):
            if i >= n % 5:
                break
        stream.close()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        health = openai.OpenAI(base_url=URL[:-3], api_key="x").get("/health", cast_to=object)
        if health["slots_busy"] == 0 and health["waiting"] == 0:
            return
    raise AssertionError(f"a slot is stuck: {health}")


failed = 0
for name, test in list(globals().items()):
    if name.startswith("sdk_"):
        try:
            test()
            print(f"[       OK ] {name}")
        except Exception:
            traceback.print_exc(file=sys.stdout)
            print(f"[  FAILED  ] {name}")
            failed = 1
sys.exit(failed)
