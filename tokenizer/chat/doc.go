// Package chat turns a conversation into the prompt text that a model was
// trained on, with the model's own chat template (tokenizer_config.json,
// chat_template.jinja, or the metadata of a GGUF file).
//
// A template is a Jinja2 program from wherever the model came from, so it is
// run as hostile: it can reach no file, environment or network, and steps,
// memory, output and nesting are bounded (internal/minijinja). Settings and
// globals are those of Hugging Face transformers: trim_blocks, lstrip_blocks,
// no escaping, raise_exception, strftime_now, tojson as json.dumps writes.
//
// There is no table of templates for models that bring none: a guessed
// template gives plausible wrong answers. See [ErrNoTemplate].
package chat
