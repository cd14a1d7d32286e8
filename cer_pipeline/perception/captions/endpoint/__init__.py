"""The captioner `endpoint`: captions by a vision-language model behind an OpenAI-compatible server."""
