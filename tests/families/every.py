"""Every family that is built tiny, by its model type, and checkpoints that a plan must refuse."""

from dataclasses import replace

from tests.families import llava, others, qwen
from tests.families.templates import chatml

FAMILIES = {
    family.model_type: family
    for family in (
        qwen.qwen2_vl(),
        qwen.qwen2_5_vl(),
        qwen.qwen3_vl(),
        qwen.qwen3_vl_moe(),
        qwen.qwen3_5(),
        qwen.qwen3_5_moe(),
        qwen.qwen2_5_omni(),
        qwen.qwen2_5_omni_thinker(),
        qwen.qwen3_omni_moe(),
        qwen.qwen3_omni_moe_thinker(),
        qwen.glm4v(),
        qwen.glm46v(),
        qwen.glm4v_moe(),
        qwen.ernie4_5_vl_moe(),
        llava.internvl(),
        llava.llava(),
        llava.llava_next(),
        llava.llava_onevision(),
        others.gemma3(),
        others.gemma4(),
        llava.idefics3(),
        llava.smolvlm(),
        others.mistral3(),
        others.llama4(),
        others.mllama(),
        llava.paligemma(),
        llava.ovis2(),
        llava.deepseek_vl(),
        others.lfm2_vl(),
        others.kimi_k25(),
        others.minicpmv4_6(),
        others.phi4_multimodal(),
        others.qwen2(),
    )
}

QWEN = chatml("<|vision_start|><|image_pad|><|vision_end|>", tools=False)
ONE_IMAGE = """
{%- for message in messages if message.content is not string -%}
  {%- if not loop.first and message.content | selectattr('type', 'equalto', 'image') | list -%}
    {{- raise_exception('only the first message may have an image') -}}
  {%- endif -%}
{%- endfor -%}
"""

# Checkpoints that some plans cannot run, by what they lack.
LACKING = {
    "a chat template": replace(llava.paligemma(), template=None),
    "images in the model": others.qwen2(),
    "images in the template": replace(qwen.qwen2_5_vl(), template=chatml("", tools=False)),
    "a second image": replace(qwen.qwen2_5_vl(), template=ONE_IMAGE + QWEN),
    "tools in the template": llava.llava(),
    "torchvision": others.llama4(),
}
