package gateway

import (
	"context"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/tokenizer/chat"
)

// ChatParams says how [Server.Chat] generates.
type ChatParams struct {
	Sampling  terse.Sampling // the log-probability fields are not used
	MaxTokens int            // 0 = the rest of the context
	Stop      []string
}

// ChatResult is a whole answer.
type ChatResult struct {
	Text   string
	Finish terse.FinishReason
	Usage  terse.Usage
	Timing terse.Timing
	JCT    time.Duration // from the call to the last token
}

// Chat answers a chat as /v1/chat/completions does, without HTTP: the same
// checks, limits, metrics and log line. onText gets the text as it comes, from
// one goroutine; nil is allowed. When ctx ends, or with any other failure, the
// result has the text so far.
func (s *Server) Chat(ctx context.Context, messages []chat.Message, p ChatParams, onText func(string)) (ChatResult, error) {
	x := s.newExchange("run", "run")
	defer x.close(s)
	to := &textSink{onText: onText}
	x.err = s.chat(ctx, x, messages, p, to)
	out := ChatResult{Text: string(to.text)}
	if len(x.results) > 0 {
		r := x.results[0]
		out.Finish, out.Usage, out.Timing, out.JCT = r.finish, r.usage, r.timing, r.jct
	}
	return out, x.err
}

func (s *Server) chat(ctx context.Context, x *exchange, messages []chat.Message, p ChatParams, to sink) error {
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	params := genParams{model: x.model, n: 1, stops: p.Stop, stopTokens: s.opts.StopTokens, sampling: p.Sampling}
	params.sampling.Logprobs, params.sampling.PromptLogprobs = -1, -1
	var limit *int
	if p.MaxTokens != 0 {
		limit = &p.MaxTokens
	}
	if err := s.planChat(x, params, messages, true, "MaxTokens", limit); err != nil {
		return err
	}
	ctx, cancel := s.withTimeout(ctx)
	defer cancel()
	return x.run(ctx, s, to)
}

// textSink hands text on and keeps it.
type textSink struct {
	onText func(string)
	text   []byte
}

func (t *textSink) delta(_ int, d delta) error {
	t.text = append(t.text, d.text...)
	if t.onText != nil && d.text != "" {
		t.onText(d.text)
	}
	return nil
}

func (t *textSink) finish(int, choiceResult) error { return nil }
