package gateway

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
)

// A fieldRule says what happens to a field of a request object.
type fieldRule struct {
	pass    bool     // used, or ignored because no answer depends on it
	neutral []string // values (compact JSON) of a refused field that ask for nothing
	why     string   // of a refused field: what is not there, and what to do
}

type fieldRules map[string]fieldRule

// check refuses a field that may not pass.
func (rules fieldRules) check(name, where string, raw json.RawMessage) error {
	rule, known := rules[name]
	path := joinPath(where, name)
	if !known {
		return &apiError{
			Status: http.StatusBadRequest, Type: typeInvalid, Param: path, Code: "unknown_parameter",
			Message: "unknown parameter '" + path + "': check its spelling, or leave it out",
		}
	}
	if rule.pass || isNull(raw) {
		return nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err == nil && slices.Contains(rule.neutral, compact.String()) {
		return nil
	}
	return unsupported(path, rule.why)
}

func unsupported(param, why string) error {
	return &apiError{
		Status: http.StatusBadRequest, Type: typeInvalid, Param: param, Code: "unsupported_parameter",
		Message: "'" + param + "' is not supported: " + why,
	}
}

func passing(names ...string) fieldRules {
	rules := fieldRules{}
	for _, name := range names {
		rules[name] = fieldRule{pass: true}
	}
	return rules
}

func refused(why string, neutral ...string) fieldRule {
	return fieldRule{why: why, neutral: neutral}
}

func union(sets ...fieldRules) fieldRules {
	all := fieldRules{}
	for _, set := range sets {
		maps.Copy(all, set)
	}
	return all
}

// Reasons that several fields share.
const (
	noTools      = "this server does not call tools yet; leave it out"
	noStructure  = "answers are plain text, nothing constrains their form yet; leave it out"
	noMultimodal = "this server reads and writes text only; leave it out"
)

// ruleSet holds the rules of every request object; a Server has one.
type ruleSet struct {
	chat, completion, tokenize, detokenize, message, part, streamOptions fieldRules
}

func newRuleSet() ruleSet {
	shared := sharedRules()
	return ruleSet{
		chat:          union(shared, chatRules()),
		completion:    union(shared, completionRules()),
		tokenize:      passing("model", "prompt", "messages", "add_special_tokens", "add_generation_prompt", "return_token_strs"),
		detokenize:    passing("model", "tokens"),
		message:       messageRules(),
		part:          union(passing("type", "text"), partRules()),
		streamOptions: passing("include_usage", "include_obfuscation"),
	}
}

func sharedRules() fieldRules {
	return union(
		passing("model", "max_tokens", "n", "stream", "stream_options", "stop", "seed", "temperature", "top_p",
			"presence_penalty", "frequency_penalty", "logit_bias", "logprobs",
			"top_k", "min_p", "repetition_penalty", "stop_token_ids", "ignore_eos"),
		passing("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
		fieldRules{
			"response_format":            refused(noStructure, `{"type":"text"}`),
			"guided_json":                refused(noStructure),
			"guided_regex":               refused(noStructure),
			"guided_choice":              refused(noStructure),
			"guided_grammar":             refused(noStructure),
			"structured_outputs":         refused(noStructure),
			"min_tokens":                 refused("answers have no least length; leave it out", "0"),
			"use_beam_search":            refused("tokens are sampled one at a time; leave it out", "false"),
			"length_penalty":             refused("it belongs to beam search; leave it out", "1", "1.0"),
			"best_of":                    refused("answers are not ranked; use n", "1"),
			"skip_special_tokens":        refused("special tokens carry no text; leave it out", "true"),
			"include_stop_str_in_output": refused("the stop string is not part of the answer; leave it out", "false"),
			"prompt_logprobs":            refused("use echo with logprobs on /v1/completions"),
		})
}

func chatRules() fieldRules {
	return union(
		passing("messages", "max_completion_tokens", "top_logprobs", "add_generation_prompt"),
		fieldRules{
			"tools":                  refused(noTools, "[]"),
			"tool_choice":            refused(noTools, `"none"`, `"auto"`),
			"parallel_tool_calls":    refused(noTools, "true", "false"),
			"functions":              refused(noTools, "[]"),
			"function_call":          refused(noTools, `"none"`, `"auto"`),
			"web_search_options":     refused(noTools),
			"modalities":             refused(noMultimodal, `["text"]`),
			"audio":                  refused(noMultimodal),
			"prediction":             refused("this server does not take predicted outputs; leave it out"),
			"reasoning_effort":       refused("the model has no reasoning levels; leave it out", `"none"`),
			"verbosity":              refused("the model has no verbosity levels; leave it out", `"medium"`),
			"moderation":             refused("this server does not moderate; leave it out"),
			"echo":                   refused("use it on /v1/completions", "false"),
			"continue_final_message": refused("write the prompt yourself on /v1/completions", "false"),
			"chat_template":          refused("the model's own template is used; write the prompt yourself on /v1/completions"),
			"chat_template_kwargs":   refused("the model's own template is used; write the prompt yourself on /v1/completions", "{}"),
		})
}

func completionRules() fieldRules {
	return union(
		passing("prompt", "echo", "best_of", "add_special_tokens"),
		fieldRules{
			"suffix": refused("the model continues text, it does not fill gaps; leave it out", `""`),
		})
}

func messageRules() fieldRules {
	return union(
		passing("role", "content", "name"),
		fieldRules{
			"tool_calls":        refused(noTools, "[]"),
			"tool_call_id":      refused(noTools),
			"function_call":     refused(noTools),
			"audio":             refused(noMultimodal),
			"refusal":           refused("the model was not told of refusals; put the text into content", `""`),
			"annotations":       refused("they are not shown to the model; leave them out", "[]"),
			"reasoning_content": refused("reasoning is not shown to the model; leave it out", `""`),
		})
}

func partRules() fieldRules {
	return fieldRules{
		"image_url":   refused(noMultimodal),
		"input_audio": refused(noMultimodal),
		"file":        refused(noMultimodal),
		"refusal":     refused("the model was not told of refusals; use a part of type text"),
	}
}
