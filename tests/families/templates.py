"""Chat templates of our own, each in the form that its family's published one has."""

from recipes.demo_series.tokenizer import CHAT_TEMPLATE

# Writes a content in the order of its parts.
BODY = """
{%- macro body(content) -%}
  {%- if content is string -%}
    {{- content -}}
  {%- else -%}
    {%- for part in content -%}
      {{- 'IMAGE' if part.type == 'image' else part.text -}}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
"""

# As LLaVA-1.5's: lists of parts alone, the images of a message before its text.
LLAVA = r"""
{%- for message in messages -%}
  {{- '' if message.role == 'system' else message.role | upper + ': ' -}}
  {%- for part in message.content | selectattr('type', 'equalto', 'image') -%}
    {{- '<image>\n' -}}
  {%- endfor -%}
  {%- for part in message.content | selectattr('type', 'equalto', 'text') -%}
    {{- part.text + ' ' -}}
  {%- endfor -%}
{%- endfor -%}
{{- 'ASSISTANT:' if add_generation_prompt -}}
"""

# As LLaVA-OneVision's: ChatML of lists of parts alone, the images of a message before its text.
ONEVISION = r"""
{%- for message in messages -%}
  {{- '<|im_start|>' + message.role + ' ' -}}
  {%- for part in message.content | selectattr('type', 'equalto', 'image') -%}
    {{- '<image>' -}}
  {%- endfor -%}
  {%- for part in message.content | selectattr('type', 'equalto', 'text') -%}
    {{- '\n' + part.text -}}
  {%- endfor -%}
  {{- '<|im_end|>' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\n' if add_generation_prompt -}}
"""

# As Gemma 3's: the system text opens the first user message, and texts are trimmed.
GEMMA = (
    BODY
    + r"""
{{- bos_token -}}
{%- set system = messages[0].role == 'system' -%}
{%- set turns = messages[1:] if system else messages -%}
{%- for message in turns -%}
  {{- 'OPEN' + ('model' if message.role == 'assistant' else message.role) + '\n' -}}
  {%- if system and loop.first -%}
    {{- body(messages[0].content) + '\n\n' -}}
  {%- endif -%}
  {{- body(message.content) | trim + 'CLOSE\n' -}}
{%- endfor -%}
{{- 'OPENmodel\n' if add_generation_prompt -}}
"""
)

# As Idefics3's: lists of parts alone, and no space before an image.
IDEFICS = r"""
{{- 'OPEN' -}}
{%- for message in messages -%}
  {{- message.role | capitalize -}}
  {{- ':' if message.content[0].type == 'image' else ': ' -}}
  {%- for part in message.content -%}
    {{- part.text if part.type == 'text' else '<image>' -}}
  {%- endfor -%}
  {{- '<end_of_utterance>\n' -}}
{%- endfor -%}
{{- 'Assistant:' if add_generation_prompt -}}
"""

# As DeepSeek-VL's: plain names, and the end of a text after the assistant's turns alone.
DEEPSEEK = (
    BODY.replace("IMAGE", "<image_placeholder>")
    + r"""
{%- for message in messages -%}
  {%- if message.role == 'system' -%}
    {{- body(message.content) + '\n\n' -}}
  {%- else -%}
    {{- message.role | capitalize + ': ' + body(message.content) -}}
    {{- eos_token if message.role == 'assistant' else '\n\n' -}}
  {%- endif -%}
{%- endfor -%}
{{- 'Assistant:' if add_generation_prompt -}}
"""
)

# As ERNIE-4.5-VL's.
ERNIE = (
    BODY.replace("IMAGE", "Picture:<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>")
    + r"""
{{- '<|begin_of_sentence|>' -}}
{%- for message in messages -%}
  {%- if message.role == 'assistant' -%}
    {{- 'Assistant: ' + body(message.content) + '<|end_of_sentence|>' -}}
  {%- else -%}
    {{- ('' if message.role == 'system' else 'User: ') + body(message.content) + '\n' -}}
  {%- endif -%}
{%- endfor -%}
{{- 'Assistant: ' if add_generation_prompt -}}
"""
)

# As GLM-4.5V's, whose text is a line below the name of its role.
GLM = (
    BODY.replace("IMAGE", "<|begin_of_image|><|image|><|end_of_image|>")
    + r"""
{{- '[gMASK]<sop>' -}}
{%- if tools -%}
  {{- '<|system|>\n# Tools\n<tools>' -}}
  {%- for tool in tools -%}
    {{- '\n' + tool | tojson -}}
  {%- endfor -%}
  {{- '\n</tools>' -}}
{%- endif -%}
{%- for message in messages -%}
  {{- '<|observation|>' if message.role == 'tool' else '<|' + message.role + '|>' -}}
  {{- '\n' + body(message.content) -}}
{%- endfor -%}
{{- '<|assistant|>\n' if add_generation_prompt -}}
"""
)

# As Mistral Small 3.1's: the assistant's turn opens with nothing.
MISTRAL = (
    BODY.replace("IMAGE", "[IMG]")
    + r"""
{{- bos_token -}}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}
    {{- '[SYSTEM_PROMPT]' + body(message.content) + '[/SYSTEM_PROMPT]' -}}
  {%- elif message.role == 'user' -%}
    {{- '[INST]' + body(message.content) + '[/INST]' -}}
  {%- else -%}
    {{- body(message.content) + eos_token -}}
  {%- endif -%}
{%- endfor -%}
"""
)

# As Llama 4's.
LLAMA = (
    BODY.replace("IMAGE", "<|image|>")
    + r"""
{{- bos_token -}}
{%- for message in messages -%}
  {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' -}}
  {{- body(message.content) | trim + '<|eot_id|>' -}}
{%- endfor -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' if add_generation_prompt -}}
"""
)

# As Llama 3.2 Vision's, which refuses a system message beside images.
MLLAMA = (
    r"""
{%- for message in messages if messages[0].role == 'system' and message.content is not string -%}
  {%- if message.content | selectattr('type', 'equalto', 'image') | list -%}
    {{- raise_exception('a system message is incompatible with images') -}}
  {%- endif -%}
{%- endfor -%}
"""
    + LLAMA
)

# As Kimi-K2.5's.
KIMI = (
    BODY.replace("IMAGE", "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>")
    + r"""
{%- for message in messages -%}
  {{- '<|im_' + message.role + '|>' + message.role + '<|im_middle|>' -}}
  {{- body(message.content) + '<|im_end|>' -}}
{%- endfor -%}
{{- '<|im_assistant|>assistant<|im_middle|>' if add_generation_prompt -}}
"""
)

# As Phi-4-multimodal's.
PHI = (
    BODY.replace("IMAGE", "<|image|>")
    + r"""
{%- for message in messages -%}
  {{- '<|' + message.role + '|>' + body(message.content) + '<|end|>' -}}
{%- endfor -%}
{{- '<|assistant|>' if add_generation_prompt -}}
"""
)

# PaliGemma has no published template; without one it would not run at all.
PALIGEMMA = (
    BODY.replace("IMAGE", "<image>")
    + r"""
{%- for message in messages -%}
  {{- body(message.content) + '\n' -}}
{%- endfor -%}
"""
)


def chatml(image: str, *, tools: bool = True) -> str:
    """The Qwen families' template with the text that stands for an image."""
    template = CHAT_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", image)
    return template if tools else template.replace("if tools", "if false")


def gemma(opens: str, closes: str, image: str) -> str:
    """Gemma's template with its marks of a turn, and the text that stands for an image."""
    return GEMMA.replace("OPEN", opens).replace("CLOSE", closes).replace("IMAGE", image)


def idefics(opens: str) -> str:
    """Idefics3's template with what stands before the first message."""
    return IDEFICS.replace("OPEN", opens)
