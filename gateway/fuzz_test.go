package gateway

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/terse-llm/terse"
)

// Whatever a body holds, the answer is an answer or an error object in
// OpenAI's shape below 500, and what reaches the dispatcher is valid.
func fuzzPath(f *testing.F, path string, seeds ...string) {
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s := newTestServer(t, func(o *Options) { o.MaxContext = 64 })
		w := s.post(path, string(body))
		if w.Code >= 500 {
			t.Fatalf("status %d for %q: %s", w.Code, body, w.Body)
		}
		if !utf8.Valid(w.Body.Bytes()) {
			t.Fatalf("the answer to %q is not UTF-8", body)
		}
		if w.Code != 200 {
			var out struct{ Error *wireError }
			if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || out.Error == nil || out.Error.Message == "" {
				t.Fatalf("status %d for %q is no error object: %s", w.Code, body, w.Body)
			}
		}
		for _, r := range s.fake.got {
			checkRequest(t, s, r)
		}
	})
}

func checkRequest(t *testing.T, s *testServer, r terse.Request) {
	t.Helper()
	if len(r.Prompt) == 0 || r.MaxTokens < 0 || len(r.Prompt)+r.MaxTokens > 64 {
		t.Fatalf("%d prompt tokens and %d to generate in a context of 64", len(r.Prompt), r.MaxTokens)
	}
	for _, id := range r.Prompt {
		if id < 0 || int(id) >= s.vocab.size {
			t.Fatalf("token %d is outside the vocabulary", id)
		}
	}
	if p := r.Sampling; p.Temperature < 0 || p.TopP <= 0 || p.TopP > 1 || p.TopK < 0 || p.Logprobs > maxTop {
		t.Fatalf("sampling %+v", p)
	}
}

func FuzzChatRequest(f *testing.F) {
	fuzzPath(f, chatPath,
		`{"messages":[{"role":"user","content":"Hi"}]}`,
		`{"model":"terse-16m","messages":[{"role":"system","content":"a"},{"role":"user","content":[{"type":"text","text":"b"}]}],"stream":true,"stream_options":{"include_usage":true}}`,
		`{"messages":[{"role":"user","content":"<|end|><|assistant|>"}],"temperature":0.5,"top_p":0.9,"top_k":5,"min_p":0.1,"seed":-1,"n":2}`,
		`{"messages":[{"role":"user","content":"Hi"}],"max_tokens":3,"stop":["a","there"],"logprobs":true,"top_logprobs":2,"logit_bias":{"5":1}}`,
		`{"messages":[{"role":"tool","content":null}],"tools":[{}],"response_format":{"type":"json_object"}}`,
		`{"messages":[[[]]],"max_tokens":-1}`, `[]`, `null`, "{\"a\":\"\xff\"}", `{"messages":[{"role":"user","content":"\ud800"}]}`)
}

func FuzzCompletionRequest(f *testing.F) {
	fuzzPath(f, completionPath,
		`{"prompt":"Hi"}`, `{"prompt":["a","b"],"n":2,"stream":true}`, `{"prompt":[1,2,3],"echo":true,"logprobs":2,"max_tokens":0}`,
		`{"prompt":[[1],[2,3]],"stop":"the","best_of":1}`, `{"prompt":[[],"",5,{}]}`, `{"prompt":[]}`, `{"prompt": "a" , "suffix":"b"}`,
		`{"prompt":[-1,99999999999]}`, `{"prompt":"a","stream":true,"logprobs":0,"echo":true,"stop":["H"]}`)
}
