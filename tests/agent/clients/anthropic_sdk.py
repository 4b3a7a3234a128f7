"""Anthropic's SDK, as a program uses it: nothing here knows of an agent."""

import anthropic

client = anthropic.Anthropic()
call = {
    "model": "mine",
    "max_tokens": 16,
    "messages": [{"role": "user", "content": "hi"}],
}

print("whole:", client.messages.create(**call).content[0].text)

with client.messages.stream(**call) as stream:
    print("streamed:", "".join(stream.text_stream))

counted = client.messages.count_tokens(model="mine", messages=call["messages"])
print("counted:", counted.input_tokens)

try:
    client.with_options(max_retries=0).messages.batches.list()
except anthropic.NotFoundError as error:
    print("refused:", error.body["error"]["type"])
