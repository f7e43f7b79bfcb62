package chat

import (
	"errors"
	"os"
	"strings"
	"testing"

	terse "github.com/terse-llm/terse"
)

// defaultConfig is the built-in model's tokenizer_config.json.
const defaultConfig = `{
 "tokenizer_class": "PreTrainedTokenizerFast",
 "bos_token": "<|endoftext|>",
 "eos_token": "<|end|>",
 "pad_token": "<|pad|>",
 "model_max_length": 8192,
 "clean_up_tokenization_spaces": false,
 "chat_template": "{% for m in messages %}{% if m.role != 'system' %}<|{{ m.role }}|>{% if loop.index0 == 1 and messages[0].role == 'system' %}{{ messages[0].content }}\n{% endif %}{{ m.content }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
}`

func turns(roleAndText ...string) []Message {
	var list []Message
	for i := 0; i < len(roleAndText); i += 2 {
		list = append(list, Message{Role: roleAndText[i], Content: roleAndText[i+1]})
	}
	return list
}

func TestDefaultModel(t *testing.T) {
	tmpl, err := FromConfig([]byte(defaultConfig), nil)
	if err != nil {
		t.Fatal(err)
	}
	f := func(generate bool, want string, roleAndText ...string) {
		t.Helper()
		got, err := tmpl.Render(Input{Messages: turns(roleAndText...), AddGenerationPrompt: generate})
		if err != nil || got != want {
			t.Errorf("got  %q, %v\nwant %q", got, err, want)
		}
	}
	f(true, "<|user|>Hi<|end|><|assistant|>", "user", "Hi")
	f(false, "<|user|>Hi<|end|>", "user", "Hi")
	f(true, "<|user|>Be brief.\nHi<|end|><|assistant|>", "system", "Be brief.", "user", "Hi")
	f(true, "<|user|>a<|end|><|assistant|>b\n<|end|><|user|> c <|end|><|assistant|>", "user", "a", "assistant", "b\n", "user", " c ")
	f(true, "<|user|><|end|><|assistant|>", "user", "")
	f(true, "<|user|>{{ 1 }}{% x %}<|end|><|assistant|>", "user", "{{ 1 }}{% x %}") // text is never a template
	f(true, "<|assistant|>")
}

func TestFromConfigFiles(t *testing.T) {
	f := func(file, want string) {
		t.Helper()
		config, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tmpl, err := FromConfig(config, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tmpl.Render(Input{Messages: turns("user", "Hi")})
		if err != nil || got != want {
			t.Errorf("%s: got  %q, %v\nwant %q", file, got, err, want)
		}
	}
	f("testdata/phi3-tokenizer_config.json", "<|user|>\nHi<|end|>\n<|endoftext|>")
	f("testdata/qwen2.5-tokenizer_config.json",
		"<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n")
}

func TestFromConfigForms(t *testing.T) {
	f := func(config, jinja, want string, tools any) {
		t.Helper()
		tmpl, err := FromConfig([]byte(config), []byte(jinja))
		if err != nil {
			t.Errorf("%s: %v", config, err)
			return
		}
		got, err := tmpl.Render(Input{Messages: turns("user", "Hi"), Tools: tools})
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", config, got, err, want)
		}
	}
	f(`{"bos_token": {"content": "<b>", "lstrip": false}, "eos_token": null, "chat_template": "{{ bos_token }}|{{ eos_token }}|{{ eos_token is defined }}"}`, "", "<b>||False", nil)
	f(`{"unk_token": "<u>", "chat_template": "{{ unk_token }}"}`, "", "<u>", nil)
	f(`{"chat_template": "old"}`, "new", "new", nil)
	f(``, "{{ messages[0].content }}", "Hi", nil)
	named := `{"chat_template": [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}, {"name": "rag", "template": "{{"}]}`
	f(named, "", "D", nil)
	f(named, "", "T", []any{})
	f(`{"chat_template": [{"name": "default", "template": "D"}]}`, "", "D", []any{1})
}

func TestFromConfigErrors(t *testing.T) {
	f := func(config, jinja, want string) {
		t.Helper()
		_, err := FromConfig([]byte(config), []byte(jinja))
		if err == nil || !strings.Contains(err.Error(), want) || terse.CodeOf(err) != terse.CodeInvalid {
			t.Errorf("%s %s: error is %v, code %s; want %q", config, jinja, err, terse.CodeOf(err), want)
		}
	}
	f(`{}`, "", "--chat-template FILE")
	f(``, "", "/v1/completions")
	f(`{"chat_template": null}`, "", "no chat template")
	f(`{"chat_template": []}`, "", "no chat template")
	f(`{"chat_template": 5}`, "", "tokenizer_config.json")
	f(`{"bos_token": 5}`, "", "tokenizer_config.json")
	f(`[`, "", "tokenizer_config.json")
	f(`{"chat_template": [{"name": "rag", "template": "x"}]}`, "", "names rag")
	f(`{"chat_template": [{"name": "default", "template": "x"}, {"name": "default", "template": "y"}]}`, "", "two chat templates")
	f(`{"chat_template": "a\n{% if x %}"}`, "", "line 2")
	f("", "a\n\n{{ 'x", "line 3")
	f(`{"chat_template": [{"name": "default", "template": "x"}, {"name": "tool_use", "template": "{{"}]}`, "", "cannot parse")
	if _, err := FromConfig(nil, nil); !errors.Is(err, ErrNoTemplate) {
		t.Errorf("error is %v, want ErrNoTemplate", err)
	}
}
