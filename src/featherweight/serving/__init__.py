"""A model as a web service that speaks OpenAI's protocol, with a chat page.

Importing this room imports none of it; it needs the extra `featherweight[serve]`.
"""
