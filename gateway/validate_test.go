package gateway

import (
	"strings"
	"testing"
)

const (
	chatPath       = "/v1/chat/completions"
	completionPath = "/v1/completions"
)

func TestRefusedByName(t *testing.T) {
	s := newTestServer(t)
	f := func(path, field, value, param string) {
		t.Helper()
		body := `{"messages":[{"role":"user","content":"Hi"}],"` + field + `":` + value + `}`
		if path == completionPath {
			body = `{"prompt":"Hi","` + field + `":` + value + `}`
		}
		s.refuses(t, path, body, 400, param, "unsupported_parameter", "'"+param+"' is not supported")
	}
	f(chatPath, "tools", `[{"type":"function"}]`, "tools")
	f(chatPath, "tool_choice", `"required"`, "tool_choice")
	f(chatPath, "functions", `[{}]`, "functions")
	f(chatPath, "function_call", `{"name":"f"}`, "function_call")
	f(chatPath, "response_format", `{"type":"json_object"}`, "response_format")
	f(chatPath, "modalities", `["text","audio"]`, "modalities")
	f(chatPath, "audio", `{"voice":"x"}`, "audio")
	f(chatPath, "prediction", `{"type":"content"}`, "prediction")
	f(chatPath, "web_search_options", `{}`, "web_search_options")
	f(chatPath, "reasoning_effort", `"high"`, "reasoning_effort")
	f(chatPath, "echo", `true`, "echo")
	f(chatPath, "guided_json", `{}`, "guided_json")
	f(completionPath, "suffix", `"x"`, "suffix")
	f(completionPath, "best_of", `3`, "best_of")
	f(completionPath, "response_format", `{"type":"json_schema"}`, "response_format")

	message := func(message, param string) {
		t.Helper()
		s.refuses(t, chatPath, `{"messages":[{"role":"user","content":"a"},`+message+`]}`, 400, param, "unsupported_parameter", "'"+param+"' is not supported")
	}
	message(`{"role":"tool","content":"x"}`, "messages[1].role")
	message(`{"role":"function","content":"x"}`, "messages[1].role")
	message(`{"role":"assistant","content":"x","tool_calls":[{"id":"1"}]}`, "messages[1].tool_calls")
	message(`{"role":"tool","content":"x","tool_call_id":"1"}`, "messages[1].tool_call_id")
	message(`{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:"}}]}`, "messages[1].content[0].image_url")
	message(`{"role":"user","content":[{"type":"input_audio"}]}`, "messages[1].content[0].type")
	message(`{"role":"user","content":[{"type":"text","text":"a"},{"type":"file","file":{}}]}`, "messages[1].content[1].file")
}

func TestUnknownFields(t *testing.T) {
	s := newTestServer(t)
	f := func(path, body, param string) {
		t.Helper()
		s.refuses(t, path, body, 400, param, "unknown_parameter", "unknown parameter '"+param+"'")
	}
	f(chatPath, `{"messages":[{"role":"user","content":"a"}],"temprature":1}`, "temprature")
	f(chatPath, `{"Messages":[{"role":"user","content":"a"}]}`, "Messages")
	f(chatPath, `{"messages":[{"role":"user","content":"a","colour":1}]}`, "messages[0].colour")
	f(chatPath, `{"messages":[{"role":"user","content":[{"type":"text","text":"a","bold":true}]}]}`, "messages[0].content[0].bold")
	f(chatPath, `{"messages":[{"role":"user","content":"a"}],"stream":true,"stream_options":{"usage":true}}`, "stream_options.usage")
	f(completionPath, `{"prompt":"a","messages":[]}`, "messages")
}

func TestInvalidValues(t *testing.T) {
	s := newTestServer(t)
	chat := func(fields, param, message string) {
		t.Helper()
		s.refuses(t, chatPath, `{"messages":[{"role":"user","content":"Hi"}],`+fields+`}`, 400, param, "invalid_value", message)
	}
	chat(`"max_tokens":-1`, "max_tokens", "is -1, it must be at least 1")
	chat(`"max_tokens":0`, "max_tokens", "at least 1")
	chat(`"max_completion_tokens":-5`, "max_completion_tokens", "is -5")
	chat(`"max_completion_tokens":5,"max_tokens":6`, "max_tokens", "give one of them")
	chat(`"max_tokens":1.5`, "max_tokens", "must be an integer")
	chat(`"max_tokens":"5"`, "max_tokens", "must be an integer in range, not string")
	chat(`"max_tokens":99999999999999999999`, "max_tokens", "must be an integer in range")
	chat(`"temperature":-0.1`, "temperature", "between 0 and 2")
	chat(`"temperature":2.1`, "temperature", "between 0 and 2")
	chat(`"temperature":"hot"`, "temperature", "must be a number")
	chat(`"temperature":1e300`, "temperature", "must be a number in range")
	chat(`"top_p":1.1`, "top_p", "between 0 and 1")
	chat(`"top_k":-2`, "top_k", "")
	chat(`"min_p":2`, "min_p", "")
	chat(`"repetition_penalty":0`, "repetition_penalty", "")
	chat(`"presence_penalty":2.5`, "presence_penalty", "between -2 and 2")
	chat(`"frequency_penalty":-2.5`, "frequency_penalty", "")
	chat(`"n":0`, "n", "between 1 and 16")
	chat(`"n":17`, "n", "between 1 and 16")
	chat(`"logprobs":true,"top_logprobs":21`, "top_logprobs", "between 0 and 20")
	chat(`"logprobs":true,"top_logprobs":-1`, "top_logprobs", "")
	chat(`"top_logprobs":2`, "top_logprobs", "only with 'logprobs'")
	chat(`"logprobs":3`, "logprobs", "must be true or false")
	chat(`"stream_options":{"include_usage":true}`, "stream_options", "only with 'stream': true")
	chat(`"stop":["a","b","c","d","e"]`, "stop", "at most 4")
	chat(`"stop":""`, "stop", "1 to 256 bytes")
	chat(`"stop":[""]`, "stop", "1 to 256 bytes")
	chat(`"stop":5`, "stop", "a string or an array")
	chat(`"stop":["a",5]`, "stop[1]", "must be a string")
	chat(`"stop":"`+strings.Repeat("x", 257)+`"`, "stop", "this one has 257")
	chat(`"logit_bias":{"8192":1}`, "logit_bias", `key "8192"`)
	chat(`"logit_bias":{"x":1}`, "logit_bias", `key "x"`)
	chat(`"logit_bias":{"1":101}`, "logit_bias", "between -100 and 100")
	chat(`"stop_token_ids":[8192]`, "stop_token_ids", "token 8192")
	chat(`"seed":1.5`, "seed", "must be an integer")

	messages := func(messages, param, message string) {
		t.Helper()
		s.refuses(t, chatPath, `{"messages":`+messages+`}`, 400, param, "invalid_value", message)
	}
	messages(`[]`, "messages", "empty")
	messages(`"Hi"`, "messages", "must be an array")
	messages(`[5]`, "messages[0]", "must be an object, not number")
	messages(`[null]`, "messages[0]", "must be a JSON object, not null")
	messages(`[{"role":"user","content":5}]`, "messages[0].content", "a string or an array of parts")
	messages(`[{"role":"king","content":"a"}]`, "messages[0].role", `"king"`)
	messages(`[{"role":7,"content":"a"}]`, "messages[0].role", "must be a string, not number")

	completion := func(body, param, message string) {
		t.Helper()
		s.refuses(t, completionPath, body, 400, param, "invalid_value", message)
	}
	completion(`{"prompt":"a","logprobs":21}`, "logprobs", "between 0 and 20")
	completion(`{"prompt":"a","logprobs":true}`, "logprobs", "must be an integer")
	completion(`{"prompt":"a","max_tokens":-1}`, "max_tokens", "at least 0")
	completion(`{"prompt":[]}`, "prompt", "empty array")
	completion(`{"prompt":{}}`, "prompt", "a string, an array of strings")
	completion(`{"prompt":[8192]}`, "prompt", "token 8192 at place 0, the vocabulary has 8192")
	completion(`{"prompt":[1,-1]}`, "prompt", "token -1 at place 1")
	completion(`{"prompt":[[1],[]]}`, "prompt[1]", "no tokens")
	completion(`{"prompt":[1,"a"]}`, "prompt", "must be an integer")
	completion(`{"prompt":["a",1]}`, "prompt[1]", "must be a string")
	completion(`{"prompt":[99999999999]}`, "prompt", "must be an integer in range")
	completion(`{"prompt":"","add_special_tokens":false}`, "prompt", "no tokens")
	completion(`{"prompt":[`+strings.Repeat(`"a",`, 128)+`"a"],"n":16}`, "prompt", "more prompts than the 128")
}

func TestMissingFields(t *testing.T) {
	s := newTestServer(t)
	f := func(path, body, param string) {
		t.Helper()
		s.refuses(t, path, body, 400, param, "missing_required_parameter", "you must provide '"+param+"'")
	}
	f(chatPath, `{}`, "messages")
	f(chatPath, `{"messages":null}`, "messages")
	f(chatPath, `{"messages":[{"content":"a"}]}`, "messages[0].role")
	f(chatPath, `{"messages":[{"role":"user"}]}`, "messages[0].content")
	f(chatPath, `{"messages":[{"role":"user","content":[{"text":"a"}]}]}`, "messages[0].content[0].type")
	f(chatPath, `{"messages":[{"role":"user","content":[{"type":"text"}]}]}`, "messages[0].content[0].text")
	f(completionPath, `{}`, "prompt")
	f("/tokenize", `{}`, "prompt")
	f("/detokenize", `{}`, "tokens")
}

func TestBadBodies(t *testing.T) {
	s := newTestServer(t)
	f := func(body, code, message string) {
		t.Helper()
		s.refuses(t, chatPath, body, 400, "", code, message)
	}
	f("", "invalid_json", "not valid JSON")
	f("{", "invalid_json", "not valid JSON")
	f("{} {}", "invalid_json", "after top-level value")
	f("{\"model\":\"a\xff\"}", "invalid_utf8", "byte 0xff at offset 11")
	f(strings.Repeat("[", 20000)+strings.Repeat("]", 20000), "invalid_json", "depth")
	f(`{"messages":`+strings.Repeat("[", 20000)+strings.Repeat("]", 20000)+`}`, "invalid_json", "depth")
	f("null", "invalid_value", "must be a JSON object")
	f("[]", "invalid_value", "must be an object, not array")
}

func TestUnknownModel(t *testing.T) {
	s := newTestServer(t)
	s.refuses(t, chatPath, `{"model":"gpt-4","messages":[{"role":"user","content":"a"}]}`, 404, "model", "model_not_found", "'gpt-4' does not exist")
	s.refuses(t, completionPath, `{"model":"gpt-4","prompt":"a"}`, 404, "model", "model_not_found", "")
	s.refuses(t, "/tokenize", `{"model":"gpt-4","prompt":"a"}`, 404, "model", "model_not_found", "")
	checkError(t, s.get("/v1/models/gpt-4"), 404, "model", "model_not_found", "")
}

func TestContextLength(t *testing.T) {
	s := newTestServer(t)
	f := func(path, body, message string) {
		t.Helper()
		s.refuses(t, path, body, 400, "", "context_length_exceeded", message)
	}
	words := strings.Repeat("hello ", 600)
	f(chatPath, `{"messages":[{"role":"user","content":"`+words+`"}]}`, "the context is 512 tokens, the prompt has")
	f(completionPath, `{"prompt":"`+words+`"}`, "the context is 512 tokens")
	f(chatPath, `{"messages":[{"role":"user","content":"Hi"}],"max_tokens":508}`, "the prompt has 5 and 'max_tokens' asks for 508 more (513 together)")
	full := strings.TrimSuffix(strings.Repeat("7,", 512), ",")
	f(completionPath, `{"prompt":[`+full+`]}`, "it must leave room")
	f(completionPath, `{"prompt":[`+full+`],"max_tokens":1}`, "it must leave room")
	f(completionPath, `{"prompt":[`+full+`,7],"max_tokens":0}`, "the prompt has 513")
	// Too long before a token is counted.
	f(completionPath, `{"prompt":"`+strings.Repeat("a", 4<<20)+`"}`, "at least")
	// A prompt that fills the context can be scored, and the default of 16 shrinks.
	s.ok(t, completionPath, `{"prompt":[`+full+`],"max_tokens":0}`, &struct{}{})
	s.ok(t, completionPath, `{"prompt":[`+full[:2*510-1]+`]}`, &struct{}{})
	if got := s.fake.last().MaxTokens; got != 2 {
		t.Errorf("MaxTokens %d, want the 2 that are left", got)
	}
}
