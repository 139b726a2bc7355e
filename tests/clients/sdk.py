#!/usr/bin/env python3
"""Drives the `anthropic` Python SDK against ANTHROPIC_BASE_URL and asserts what a user would see.

It sends what users send (system as blocks, as a string, none; plain, streamed, with a tool) and
looks only at results; the octets are the business of tap and check.
"""

import time

import anthropic

SYSTEM = [{"type": "text", "text": "You are Claude Code, \"the\" CLI.\nZürich 🙂", "cache_control": {"type": "ephemeral"}},
          {"type": "text", "text": "Second block: never edited."}]
TOOL = {"name": "get_weather", "description": "Weather of a city",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
MODEL = "claude-mock-1"

client = anthropic.Anthropic(max_retries=0)


def ask(text, **more):
    return {"model": MODEL, "max_tokens": 256, "messages": [{"role": "user", "content": text}], **more}


def plain():
    message = client.messages.create(**ask("say hi", system=SYSTEM))
    assert message.content[0].text.startswith("Hello from the mock"), message
    assert message.stop_reason == "end_turn"


def plain_without_blocks():
    client.messages.create(**ask("say hi", system="A plain string is not edited."))
    client.messages.create(**ask("say hi"))


def streamed():
    arrivals = []
    with client.messages.stream(**ask("say hi", system=SYSTEM)) as stream:
        for _ in stream.text_stream:
            arrivals.append(time.monotonic())
        message = stream.get_final_message()
    assert message.content[0].text.endswith("leaves alone."), message
    assert len(arrivals) > 5 and arrivals[-1] - arrivals[0] > 0.05, "the events came in one lump"


def tool_turn(stream):
    turn = ask("use a tool, please", system=SYSTEM, tools=[TOOL])

    def create():
        if not stream:
            return client.messages.create(**turn)
        with client.messages.stream(**turn) as events:
            return events.get_final_message()

    message = create()
    assert message.stop_reason == "tool_use", message
    call = next(block for block in message.content if block.type == "tool_use")
    assert call.input == {"city": "Zürich", "note": "a \"quoted\" word"}, call.input
    turn["messages"] += [
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in message.content]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "12 °C"}]},
    ]
    message = create()
    assert message.stop_reason == "end_turn" and message.content[0].text == "The tool said: 12 °C", message


def other_routes():
    assert client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "x" * 400}]).input_tokens > 100
    assert [model.id for model in client.models.list()] == [MODEL]
    client.beta.messages.create(**ask("say hi", system=SYSTEM), betas=["interleaved-thinking-2025-05-14", "some-future-beta-2099-01-01"])


def errors():
    try:
        client.messages.create(**ask("mock status 529", system=SYSTEM))
    except anthropic.APIStatusError as error:
        assert error.status_code == 529 and error.body["error"]["type"] == "overloaded_error", error
        assert error.response.headers["request-id"].startswith("req_mock_")
    else:
        raise AssertionError("529 did not arrive")


plain()
plain_without_blocks()
streamed()
tool_turn(stream=False)
tool_turn(stream=True)
other_routes()
errors()
print(f"  ok anthropic {anthropic.__version__}: plain, streamed, two tool-use turns, other routes, errors")
