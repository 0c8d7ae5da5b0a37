import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.images.request_image import FileImage
from medeval.models.base import Reply, Request, Sampling
from medeval.models.openai.wire import (
    NO_IMAGES,
    STREAM_ONLY,
    Refusal,
    images_after_tools,
    read_refusal,
    read_reply,
    request_body,
    request_settings,
)
from medeval.tools.base import ToolSchema
from medeval.types.sample import JsonValue
from medeval.types.trajectory import FinishReason, ImageRef, Message, NativeCall, Text, Usage

IMAGE = FileImage(
    data=b"\xff\xd8bytes", media_type="image/jpeg", sha256="0" * 64, width_px=2, height_px=2
)
OTHER = FileImage(data=b"\x89PNG", media_type="image/png", sha256="1" * 64, width_px=3, height_px=3)


def request(*messages: Message, **changes: Any) -> Request:
    values: dict[str, Any] = {"images": (), "sampling": Sampling(), "seed": 7, **changes}
    return Request(messages=messages, **values)


def user(*content: Text | ImageRef) -> Message:
    return Message(role="user", content=content)


def url_of(image: FileImage) -> str:
    return f"data:{image.media_type};base64,{base64.b64encode(image.encoded()).decode()}"


def sent(asked: Request, settings: dict[str, JsonValue] | None = None) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request_body(asked, settings or {}))
    return body


def completion(message: dict[str, Any], finish: str | None = "stop", **fields: Any) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps({"id": "x", "choices": [choice], **fields}).encode()


def test_images_are_sent_as_data_urls_in_the_place_they_have_in_the_message() -> None:
    asked = request(
        Message(role="system", content=(Text("Look."),)),
        user(ImageRef(1), Text("and"), ImageRef(0), Text("which?")),
        images=(IMAGE, OTHER),
    )
    assert sent(asked)["messages"] == [
        {"role": "system", "content": "Look."},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": url_of(OTHER)}},
                {"type": "text", "text": "and"},
                {"type": "image_url", "image_url": {"url": url_of(IMAGE)}},
                {"type": "text", "text": "which?"},
            ],
        },
    ]


@given(st.lists(st.text(), max_size=3))
def test_any_text_arrives_as_it_was(texts: list[str]) -> None:
    asked = request(user(ImageRef(0), *map(Text, texts)), images=(IMAGE,))
    parts = sent(asked)["messages"][0]["content"]
    assert [part["text"] for part in parts[1:]] == texts


def test_a_text_without_images_is_sent_as_a_plain_string() -> None:
    assert sent(request(user(Text("a"), Text("b"))))["messages"][0]["content"] == "ab"


def test_calls_and_their_answers_go_back_and_reasoning_does_not() -> None:
    call = NativeCall(id="c1", name="crop", arguments='{"box": [1, 2]}')
    asked = request(
        user(Text("?")),
        Message(role="assistant", content=(), reasoning="hm", native_calls=(call,)),
        Message(role="tool", content=(Text("done"), ImageRef(0)), call_id="c1"),
        images=(IMAGE,),
    )
    _, assistant, tool = sent(asked)["messages"]
    assert assistant == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "crop", "arguments": '{"box": [1, 2]}'},
            }
        ],
    }
    assert tool["tool_call_id"] == "c1"
    assert tool["content"][1]["image_url"]["url"] == url_of(IMAGE)


@pytest.mark.parametrize("arguments", ["", "{", '" "', "[1]", "null"])
def test_arguments_that_are_no_object_do_not_break_the_conversation(arguments: str) -> None:
    call = NativeCall(id="c1", name="crop", arguments=arguments)
    message = Message(role="assistant", content=(Text("so"),), native_calls=(call,))
    (assistant,) = sent(request(message))["messages"]
    assert assistant["tool_calls"][0]["function"]["arguments"] == "{}"
    assert assistant["content"] == "so"


def test_native_tools_are_offered_and_left_to_the_model() -> None:
    schema = ToolSchema(name="crop", description="Crop.", parameters={"type": "object"})
    asked = request(user(Text("?")), tools=(schema,))
    assert sent(asked)["tools"] == [schema.as_json()]
    assert request_settings(asked)["tool_choice"] == "auto"
    assert "tools" not in sent(request(user(Text("?"))))
    assert "tool_choice" not in request_settings(request(user(Text("?"))))


def test_images_of_tools_move_into_one_users_turn_after_all_tools_messages() -> None:
    def tool(call_id: str, *content: Text | ImageRef) -> Message:
        return Message(role="tool", content=content, call_id=call_id)

    said = Message(role="assistant", content=(Text("I crop."),))
    answers = (tool("a", Text("1"), ImageRef(1)), tool("b", ImageRef(2), Text("2")))
    moved = images_after_tools((user(ImageRef(0)), said, *answers, said, tool("c", Text("3"))))
    assert moved == (
        user(ImageRef(0)),
        said,
        tool("a", Text("1")),
        tool("b", Text("2")),
        user(ImageRef(1), ImageRef(2)),
        said,
        tool("c", Text("3")),
    )
    assert images_after_tools(moved) == moved


def test_only_settings_that_were_made_are_sent() -> None:
    assert request_settings(request()) == {"temperature": 0.0, "max_tokens": 2048, "seed": 7}
    sampling = Sampling(
        temperature=0.7,
        max_tokens=5,
        top_p=0.9,
        top_k=20,
        repetition_penalty=1.05,
        presence_penalty=1.5,
    )
    assert request_settings(request(sampling=sampling, stop=("</a>",))) == {
        "temperature": 0.7,
        "max_tokens": 5,
        "seed": 7,
        "top_p": 0.9,
        "presence_penalty": 1.5,
        "top_k": 20,
        "repetition_penalty": 1.05,
        "stop": ["</a>"],
        "include_stop_str_in_output": True,
    }


@pytest.mark.parametrize(
    ("message", "finish", "expected"),
    [
        ({"content": "A"}, "stop", Reply(text="A", finish="stop")),
        ({"content": "A"}, "length", Reply(text="A", finish="length")),
        ({"content": "A"}, None, Reply(text="A", finish="stop")),
        ({"content": None}, "stop", Reply(text="", finish="stop")),
        ({}, "stop", Reply(text="", finish="stop")),
        ({"content": "A"}, "content_filter", Reply(text="A", finish="refused")),
        (
            {"content": None, "refusal": "I can't."},
            "stop",
            Reply(text="I can't.", finish="refused"),
        ),
        ({"content": "A", "refusal": ""}, "stop", Reply(text="A", finish="stop")),
        (
            {"content": "A", "reasoning_content": "hm"},
            "stop",
            Reply(text="A", finish="stop", reasoning="hm"),
        ),
        (
            {"content": "A", "reasoning": "hm"},
            "stop",
            Reply(text="A", finish="stop", reasoning="hm"),
        ),
        (
            {"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "A"}]},
            "stop",
            Reply(text="A", finish="stop"),
        ),
        (
            {
                "content": None,
                "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{"}}],
            },
            "tool_calls",
            Reply(
                text="",
                finish="tool_calls",
                native_calls=(NativeCall(id="c", name="f", arguments="{"),),
            ),
        ),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
            "function_call",
            Reply(
                text="",
                finish="tool_calls",
                native_calls=(NativeCall(id="call_0", name="f", arguments='{"a": 1}'),),
            ),
        ),
        (
            {"tool_calls": [{"id": "c", "function": {"name": "f"}}]},
            "stop",
            Reply(
                text="", finish="stop", native_calls=(NativeCall(id="c", name="f", arguments=""),)
            ),
        ),
    ],
)
def test_a_completion_becomes_a_reply(
    message: dict[str, Any], finish: str | None, expected: Reply
) -> None:
    assert read_reply(completion(message, finish)) == expected


def stream(*deltas: dict[str, Any], finish: str | None = "stop") -> bytes:
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": one}]} for one in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    chunks.append({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
    events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    return f": PROCESSING\n\n{events}data: [DONE]\n\n".encode()


def call_chunk(index: int | None, call_id: str | None, **function: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "id": call_id, "function": function}]}


ONE_CALL = (NativeCall(id="c", name="crop", arguments='{"a": 1}'),)
TWO_CALLS = (*ONE_CALL, NativeCall(id="d", name="look", arguments="{}"))


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        (
            [
                {"role": "assistant", "content": None, "reasoning_content": "h"},
                {"reasoning_content": "m"},
                {"content": "A"},
                {"content": "B"},
            ],
            Reply(text="AB", finish="stop", reasoning="hm"),
        ),
        (
            [
                call_chunk(0, "c", name="crop", arguments=""),
                call_chunk(0, None, arguments='{"a"'),
                call_chunk(0, "", name=None, arguments=": 1}"),
                call_chunk(1, "d", name="look", arguments="{}"),
            ],
            Reply(text="", finish="stop", native_calls=TWO_CALLS),
        ),
        (
            [
                call_chunk(0, "c", name="crop", arguments={"a": 1}),
                call_chunk(0, "d", name="look", arguments="{}"),
            ],
            Reply(text="", finish="stop", native_calls=TWO_CALLS),
        ),
        (
            [call_chunk(None, "c", name="crop", arguments='{"a": 1}')],
            Reply(text="", finish="stop", native_calls=ONE_CALL),
        ),
    ],
)
def test_the_chunks_of_a_stream_are_joined(deltas: list[dict[str, Any]], expected: Reply) -> None:
    assert read_reply(stream(*deltas)) == replace(
        expected, usage=Usage(prompt_tokens=5, completion_tokens=2)
    )


def test_a_stream_that_broke_off_holds_no_reply() -> None:
    assert read_reply(stream({"content": "half"}, finish=None)) is None
    assert read_reply(b'data: {"error": {"message": "boom"}}\n\n') is None
    assert read_reply(b"data: {") is None


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, Usage()),
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": None},
            Usage(prompt_tokens=5, completion_tokens=2),
        ),
        (
            {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3}},
            Usage(prompt_tokens=5, cached_tokens=3),
        ),
    ],
)
def test_usage_is_what_the_server_told(usage: dict[str, Any] | None, expected: Usage) -> None:
    reply = read_reply(completion({"content": "A"}, usage=usage))
    assert reply is not None
    assert reply.usage == expected


@pytest.mark.parametrize(
    ("text", "finish", "expected", "ends"),
    [
        ("<a>x</a>", "stop", "<a>x</a>", "stop"),
        ("<a>x", "stop", "<a>x", "stop"),
        ("<a>x</a> and on", "length", "<a>x</a>", "stop"),
        ("<b>y</b><a>x</a>", "stop", "<b>y</b>", "stop"),
        ("no mark", "length", "no mark", "length"),
    ],
)
def test_a_reply_ends_right_after_a_stop_string_and_none_is_invented(
    text: str, finish: str, expected: str, ends: FinishReason
) -> None:
    reply = read_reply(completion({"content": text}, finish), stop=("", "</a>", "</b>"))
    assert reply == Reply(text=expected, finish=ends)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>hello</html>",
        b'{"choices": [{"mess',
        b'{"choices": []}',
        b'{"choices": [{"finish_reason": "stop"}]}',
        b'{"choices": [{"message": null}]}',
        b"[]",
        b"\xff\xfe",
        completion({"content": "half"}, "abort"),
        completion({"content": "half"}, "error"),
    ],
)
def test_an_answer_without_a_whole_reply_holds_none(content: bytes) -> None:
    assert read_reply(content) is None


# Messages as servers send them, from their sources and their users' reports. True: the prompt
# may fit where max_tokens is not asked for.
TOO_LONG: list[tuple[str, int, object, bool]] = [
    (
        "vLLM 0.32, text",
        400,
        {
            "error": {
                "message": "This model's maximum context length is 4096 tokens. However, your "
                "prompt contains at least 4097 input tokens, which exceeds this limit even "
                "without any output tokens. Please reduce the length of the input prompt.",
                "type": "BadRequestError",
                "param": "input_tokens",
                "code": 400,
            }
        },
        False,
    ),
    (
        "vLLM 0.32, characters",
        400,
        {
            "error": {
                "message": "This model's maximum context length is 4096 tokens. However, your "
                "prompt contains 900000 characters (more than 524288 characters, which is the "
                "upper bound for 4096 input tokens). Please reduce the length of the input prompt.",
                "type": "BadRequestError",
                "param": "input_text",
                "code": 400,
            }
        },
        False,
    ),
    (
        "vLLM 0.32, at the end of the context",
        400,
        {
            "error": {
                "message": "Input length (4097) exceeds model's maximum context length (4096)."
            }
        },
        False,
    ),
    (
        "vLLM, a prompt that fills the context",
        400,
        {"error": {"message": "max_tokens must be at least 1, got 0.", "param": "max_tokens"}},
        False,
    ),
    (
        "vLLM 0.11-0.16, output named",
        400,
        {
            "error": {
                "message": "This model's maximum context length is 32768 tokens. However, you "
                "requested 32000 output tokens and your prompt contains at least 769 input "
                "tokens, for a total of at least 32769 tokens. Please reduce the length of the "
                "input prompt or the number of requested output tokens. "
                "(parameter=input_tokens, value=769)",
                "type": "BadRequestError",
                "param": "input_tokens",
                "code": 400,
            }
        },
        True,
    ),
    (
        "vLLM 0.10, max_tokens too large",
        400,
        {
            "error": {
                "message": "'max_tokens' or 'max_completion_tokens' is too large: 32000. This "
                "model's maximum context length is 65536 tokens and your request has 34006 input "
                "tokens (32000 > 65536 - 34006).",
                "type": "BadRequestError",
                "code": 400,
            }
        },
        True,
    ),
    (
        "vLLM 0.9, flat error",
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 16384 tokens. However, you "
            "requested 122946 tokens (112946 in the messages, 10000 in the completion). Please "
            "reduce the length of the messages or completion.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        True,
    ),
    (
        "vLLM, images expanded",
        400,
        {
            "error": {
                "message": "The decoder prompt (length 12324) is longer than the maximum model "
                "length of 8192. Make sure that `max_model_len` is no smaller than the number of "
                "text tokens plus multimodal tokens."
            }
        },
        False,
    ),
    (
        "OpenAI",
        400,
        {
            "error": {
                "message": "This model's maximum context length is 128000 tokens. However, your "
                "messages resulted in 202868 tokens (202767 in the messages, 101 in the "
                "functions). Please reduce the length of the messages or functions.",
                "type": "invalid_request_error",
                "param": "messages",
                "code": "context_length_exceeded",
            }
        },
        False,
    ),
    (
        "OpenAI, code alone",
        400,
        {"error": {"message": "Your input is too big.", "code": "context_length_exceeded"}},
        False,
    ),
    (
        "OpenAI, window",
        400,
        {"error": {"message": "Your input exceeds the context window of this model."}},
        False,
    ),
    (
        "llama.cpp",
        400,
        {
            "error": {
                "code": 400,
                "message": "request (13392 tokens) exceeds the available context size "
                "(8192 tokens), try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 13392,
                "n_ctx": 8192,
            }
        },
        False,
    ),
    (
        "llama.cpp of 2025, with a status of 500",
        500,
        {
            "error": {
                "code": 500,
                "message": "the request exceeds the available context size. try increasing the "
                "context size or enable context shift",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 1407,
                "n_ctx": 256,
            }
        },
        False,
    ),
    (
        "llama.cpp, with a status of 200",
        200,
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size. try increasing the "
                "context size or enable context shift",
                "type": "exceed_context_size_error",
            }
        },
        False,
    ),
    (
        "SGLang, prompt",
        400,
        {
            "object": "error",
            "message": "The input (61709 tokens) is longer than the model's context length "
            "(40960 tokens).",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        False,
    ),
    (
        "SGLang, pool",
        400,
        {
            "object": "error",
            "message": "Input length (160062 tokens) exceeds the maximum allowed length (59862 "
            "tokens). Use a shorter input or enable --allow-auto-truncate.",
        },
        False,
    ),
    (
        "SGLang, total",
        400,
        {
            "object": "error",
            "message": "Requested token count exceeds the model's maximum context length of 32768 "
            "tokens. You requested a total of 70000 tokens: 6000 tokens from the input messages "
            "and 64000 tokens for the completion. Please reduce the number of tokens in the input "
            "messages or the completion to fit within the limit.",
        },
        True,
    ),
    (
        "SGLang, images expanded",
        400,
        {
            "object": "error",
            "message": "Multimodal prompt is too long after expanding multimodal tokens. After "
            "expanding len(req.origin_input_ids_unpadded)=20 => 300000 >= 249994.",
        },
        False,
    ),
    (
        "TGI",
        422,
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. "
            "Given: 5000 `inputs` tokens and 20 `max_new_tokens`",
            "error_type": "validation",
        },
        True,
    ),
    (
        "Gemini, in a list",
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "The input token count (1196265) exceeds the maximum number of "
                    "tokens allowed (1048575).",
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
        False,
    ),
    (
        "Anthropic",
        400,
        {"error": {"message": "prompt is too long: 213462 tokens > 200000 maximum"}},
        False,
    ),
    (
        "xAI",
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "This model's maximum prompt length is 131072 but the request contains "
            "537812 tokens.",
        },
        False,
    ),
    (
        "Groq",
        400,
        {"error": {"message": "Please reduce the length of the messages or completion."}},
        True,
    ),
    (
        "OpenRouter, the provider's own words inside",
        400,
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {
                    "raw": json.dumps(
                        {
                            "error": {
                                "message": "This model's maximum context length is 32768 tokens. "
                                "However, you requested 8192 output tokens and your prompt "
                                "contains at least 24577 input tokens"
                            }
                        }
                    )
                },
            }
        },
        True,
    ),
]


@pytest.mark.parametrize(
    ("status", "document", "blames_max_tokens"),
    [pytest.param(*entry[1:], id=entry[0]) for entry in TOO_LONG],
)
def test_a_prompt_that_is_too_long_is_known_by_each_servers_words(
    status: int, document: object, blames_max_tokens: bool
) -> None:
    refusal = read_refusal(status, json.dumps(document).encode())
    assert refusal is not None
    assert refusal.is_too_long
    assert refusal.blames_max_tokens == blames_max_tokens


NOT_TOO_LONG = [
    "max_tokens=4096 cannot be greater than max_model_len=2048. Please request fewer output "
    "tokens. (parameter=max_tokens, value=4096)",
    "max_tokens is too large: 100000. This model supports at most 16384 completion tokens, whereas "
    "you provided 100000.",
    "At most 1 image(s) may be provided in one prompt.",
    "messages: at least one message is required",
    '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
    "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 40000.",
    "input (3000 tokens) is too large to process. increase the physical batch size",
    "temperature must be non-negative, got -1.0.",
    "",
]


@pytest.mark.parametrize("message", NOT_TOO_LONG)
def test_another_refusal_is_not_a_prompt_too_long_nor_an_unknown_setting(message: str) -> None:
    refusal = Refusal(status=400, message=message)
    assert not refusal.is_too_long
    assert refusal.unknown_settings(request_settings(request(stop=("x",)))) == set()


@pytest.mark.parametrize(
    ("server", "status", "document", "expected"),
    [
        (
            "OpenAI, reasoning models",
            400,
            {
                "error": {
                    "message": "Unsupported parameter: 'max_tokens' is not supported with this "
                    "model. Use 'max_completion_tokens' instead.",
                    "param": "max_tokens",
                    "code": "unsupported_parameter",
                }
            },
            {"max_tokens"},
        ),
        (
            "OpenAI, values",
            400,
            {
                "error": {
                    "message": "Unsupported value: 'temperature' does not support 0 with this "
                    "model. Only the default (1) value is supported.",
                    "param": "temperature",
                    "code": "unsupported_value",
                }
            },
            {"temperature"},
        ),
        (
            "OpenAI, arguments",
            400,
            {"error": {"message": "Unrecognized request argument supplied: top_k"}},
            {"top_k"},
        ),
        (
            "Azure",
            400,
            {
                "error": {
                    "message": "Unrecognized request arguments supplied: "
                    "include_stop_str_in_output, repetition_penalty, top_k"
                }
            },
            {"include_stop_str_in_output", "repetition_penalty", "top_k"},
        ),
        (
            "Mistral",
            422,
            {
                "object": "error",
                "message": {
                    "detail": [
                        {
                            "type": "extra_forbidden",
                            "loc": ["body", "repetition_penalty"],
                            "msg": "Extra inputs are not permitted",
                            "input": {"temperature": 1},
                        }
                    ]
                },
            },
            {"repetition_penalty"},
        ),
        ("Groq", 400, {"error": {"message": "property 'top_k' is unsupported"}}, {"top_k"}),
        (
            "Gemini",
            400,
            {"error": {"message": 'Unknown name "top_k": Cannot find field.'}},
            {"top_k"},
        ),
        (
            "xAI",
            400,
            {"error": "Argument not supported on this model: presencePenalty"},
            {"presence_penalty"},
        ),
        (
            "only a code",
            400,
            {"error": {"message": "seed", "param": "seed", "code": "unknown_parameter"}},
            {"seed"},
        ),
        (
            "OpenAI, stop strings",
            400,
            {
                "error": {
                    "message": "Invalid 'stop': array too long. Expected an array with maximum "
                    "length 4, but got an array with length 5 instead.",
                    "param": "stop",
                    "code": "array_above_max_length",
                }
            },
            {"stop"},
        ),
        (
            "LiteLLM before OpenAI, stop strings",
            400,
            {
                "error": {
                    "message": "litellm.BadRequestError: OpenAIException - Error code: 400 - "
                    "{'error': {'message': \"Invalid 'stop': array too long.\"}}"
                }
            },
            {"stop"},
        ),
        (
            "Azure, stop strings",
            400,
            {"error": {"message": "'$.stop' is invalid. Please check the API reference."}},
            {"stop"},
        ),
        (
            "Anthropic, stop strings",
            400,
            {"error": {"message": "stop_sequences: each must contain non-whitespace"}},
            {"stop"},
        ),
        (
            "Anthropic",
            400,
            {"error": {"message": "`temperature` is deprecated for this model."}},
            {"temperature"},
        ),
        (
            "transformers serve",
            422,
            {"detail": "Unexpected fields in the request: {'include_stop_str_in_output'}"},
            {"include_stop_str_in_output"},
        ),
        ("another status", 404, {"error": {"message": "unknown top_k"}}, set()),
        ("a setting not sent", 400, {"error": {"message": "Unknown parameter: 'logprobs'"}}, set()),
    ],
)
def test_a_setting_that_a_server_does_not_take_is_known_by_its_words(
    server: str, status: int, document: object, expected: set[str]
) -> None:
    sampling = Sampling(top_k=5, repetition_penalty=1.1, presence_penalty=1.0)
    settings = request_settings(request(sampling=sampling, stop=("</a>",)))
    refusal = read_refusal(status, json.dumps(document).encode())
    assert refusal is not None
    assert refusal.unknown_settings(settings) == expected, server


@pytest.mark.parametrize(
    "message",
    [
        "image input is not supported - hint: you may need to provide the mmproj",  # llama.cpp
        'Failed to parse messages: Unsupported content part type: "image_url"',  # llama.cpp, 2025
        "facebook/opt-125m is not a multimodal model None",  # vLLM
        "this model does not support image input",  # Ollama
        "failed to process inputs: this model is missing data required for image input",  # Ollama
        "No endpoints found that support image input",  # OpenRouter
        "Invalid content type. image_url is only supported by certain models.",  # OpenAI
        "messages[0]: unknown variant `image_url`, expected `text`",  # DeepSeek
    ],
)
def test_a_model_without_images_is_known_by_each_servers_words(message: str) -> None:
    refusal = Refusal(status=500, message=message)
    assert refusal.says(NO_IMAGES)
    assert not refusal.is_transient


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("This model only support stream mode, please enable the stream parameter", True),
        ("parameter.enable_thinking must be set to false for non-streaming calls", True),
        ("Unknown parameter: 'stream_options'.", False),
        ("stream_options can only be used when stream is true", False),
    ],
)
def test_a_server_that_only_streams_is_known_by_its_words(message: str, expected: bool) -> None:
    assert Refusal(status=400, message=message).says(STREAM_ONLY) == expected


def test_what_a_validation_error_repeats_of_the_input_is_no_evidence() -> None:
    document = {"detail": [{"loc": ["body", "x"], "msg": "wrong", "input": "prompt is too long"}]}
    refusal = read_refusal(422, json.dumps(document).encode())
    assert refusal == Refusal(status=422, message="body.x: wrong")


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [
        (200, b"<html></html>", None),
        (200, b'{"choices": []}', None),
        (200, b"[]", None),
        (200, b'{"error": "boom"}', Refusal(status=200, message="boom")),
        (
            200,
            b'{"error": {"code": 429, "message": "slow"}}',
            Refusal(status=429, message="slow", codes=frozenset({"429"})),
        ),
        (502, b"<html>Bad Gateway</html>", Refusal(status=502, message="<html>Bad Gateway</html>")),
        (500, b"", Refusal(status=500, message="")),
        (400, b'{"detail": "nope"}', Refusal(status=400, message="nope")),
        (
            400,
            b'{"error": {"code": "odd"}}',
            Refusal(status=400, message='{"code": "odd"}', codes=frozenset({"odd"})),
        ),
        (400, b'{"message": {"a": 1}}', Refusal(status=400, message='{"a": 1}')),
    ],
)
def test_an_error_is_read_in_each_form_it_is_sent(
    status: int, content: bytes, expected: Refusal | None
) -> None:
    assert read_refusal(status, content) == expected


@given(st.integers(200, 599), st.binary(max_size=200) | st.text().map(str.encode))
def test_no_bytes_of_a_server_raise(status: int, content: bytes) -> None:
    read_reply(content)
    read_refusal(status, content)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["error", "message", "detail", "loc", "msg", "code", "metadata", "raw"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_no_json_of_a_server_raises(document: object) -> None:
    refusal = read_refusal(400, json.dumps(document).encode())
    assert refusal is not None
    assert refusal.unknown_settings(["top_k"]) is not None


@pytest.mark.parametrize(
    ("status", "codes", "expected"),
    [
        (408, (), True),
        (409, (), True),
        (429, (), True),
        (429, ("insufficient_quota",), False),
        (500, (), True),
        (503, (), True),
        (529, (), True),
        (400, (), False),
        (401, (), False),
        (404, (), False),
        (422, (), False),
        (302, (), False),
    ],
)
def test_only_failures_that_may_pass_are_transient(
    status: int, codes: tuple[str, ...], expected: bool
) -> None:
    assert Refusal(status=status, message="", codes=frozenset(codes)).is_transient == expected


def test_a_long_text_is_shortened_for_people() -> None:
    shown = Refusal(status=500, message="word " * 1000).shown
    assert shown.startswith("HTTP 500: word word")
    assert len(shown) < 700
    assert Refusal(status=500, message="").shown == "HTTP 500: no text"
