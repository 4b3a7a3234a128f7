"""OpenAI's SDK, as a program uses it: nothing here knows of an agent."""

import openai

client = openai.OpenAI()

answer = client.chat.completions.create(
    model="mine", messages=[{"role": "user", "content": "hi"}]
)
print("whole:", answer.choices[0].message.content)

stream = client.chat.completions.create(
    model="mine", messages=[{"role": "user", "content": "hi"}], stream=True
)
print("streamed:", "".join(chunk.choices[0].delta.content or "" for chunk in stream))

print("models:", ",".join(model.id for model in client.models.list()))

try:
    client.with_options(max_retries=0).files.list()
except openai.NotFoundError as error:
    print("refused:", error.code)
