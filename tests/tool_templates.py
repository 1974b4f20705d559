"""Chat templates of families that call functions, each with its own way to write a call."""

from __future__ import annotations

# Qwen2.5, Hermes and many others.
HERMES = """{%- if tools %}<|im_start|>system
# Tools
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools><|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == "assistant" and message.tool_calls %}
{{- '<|im_start|>assistant' }}
{%- if message.content %}{{ '\\n' + message.content }}{% endif %}
{%- for tool_call in message.tool_calls %}
{%- set function = tool_call.function %}
{{- '\\n<tool_call>\\n{"name": "' + function.name + '", "arguments": ' }}
{{- function.arguments | tojson }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == "tool" %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content }}
{{- '\\n</tool_response><|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# Llama 3.1: nothing but an object, and one call in a turn.
LLAMA = """{%- for message in messages %}
{%- if message.role == "user" %}
{{- '<|im_start|>user\\n' }}
{%- if tools %}{{ 'Functions: ' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}
{{- message.content + '<|im_end|>' }}
{%- elif message.tool_calls %}
{%- if message.tool_calls | length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}
{%- set function = message.tool_calls[0].function %}
{{- '<|im_start|>assistant\\n{"name": "' + function.name + '", "parameters": ' }}
{{- function.arguments | tojson }}
{{- '}<|im_end|>' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# Mistral: a list behind a special token, here <|endoftext|>; ids have nine letters and digits.
MISTRAL = """{%- for message in messages %}
{%- if message.role == "user" %}
{%- if tools %}{{ '[TOOLS]' + tools | tojson + '[/TOOLS]' }}{% endif %}
{{- '[INST]' + message.content + '[/INST]' }}
{%- elif message.tool_calls %}
{{- '<|endoftext|> [' }}
{%- for tool_call in message.tool_calls %}
{%- if tool_call.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}
{{- '{"name": "' + tool_call.function.name + '", "arguments": ' }}
{{- tool_call.function.arguments | tojson + '}' }}
{%- if not loop.last %}{{ ', ' }}{% endif %}
{%- endfor %}
{{- ']' + eos_token }}
{%- else %}
{{- message.content + eos_token }}
{%- endif %}
{%- endfor %}"""

# Calls as XML: no arguments in JSON.
XML = """{%- for message in messages %}
{%- if tools %}{{ tools | tojson }}{% endif %}
{%- for tool_call in message.tool_calls or [] %}
{{- '<function=' + tool_call.function.name + '>' }}
{%- for key, value in tool_call.function.arguments.items() %}{{ key }}={{ value }}{% endfor %}
{%- endfor %}
{{- message.content }}
{%- endfor %}"""
