package gateway

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/tokenizer/chat"
)

// generation handles a generation endpoint: prepare reads the body into the
// exchange's tasks.
func (s *Server) generation(endpoint, prefix string, prepare func(*exchange, []byte) error) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		x := s.newExchange(endpoint, prefix)
		w.Header().Set("X-Request-Id", x.id)
		x.status = http.StatusInternalServerError // what a panic leaves in the log
		defer func() { x.close(s) }()
		x.err = s.exchange(w, r, x, prepare)
		x.status = http.StatusOK
		return x.err
	}
}

func (s *Server) exchange(w http.ResponseWriter, r *http.Request, x *exchange, prepare func(*exchange, []byte) error) error {
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	body, err := s.readBody(w, r)
	if err != nil {
		return err
	}
	if err := prepare(x, body); err != nil {
		return err
	}
	ctx, cancel := s.withTimeout(r.Context())
	defer cancel()
	if x.params.stream {
		return s.stream(ctx, w, x)
	}
	return s.plain(ctx, w, x)
}

func (s *Server) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.opts.Timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, s.opts.Timeout, &terse.Error{
		Code: terse.CodeDeadline, Message: fmt.Sprintf("the request took longer than the server's limit of %v", s.opts.Timeout),
	})
}

// plain answers in one piece.
func (s *Server) plain(ctx context.Context, w http.ResponseWriter, x *exchange) error {
	to := newCollector(len(x.tasks))
	if err := x.run(ctx, s, to); err != nil {
		return err
	}
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(s.opts.ClientTimeout))
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
	w.Header().Set(timingHeader, x.report.header())
	writeJSON(w, http.StatusOK, x.shape.answer(x, to.texts()))
	return nil
}

// stream answers token by token.
func (s *Server) stream(ctx context.Context, w http.ResponseWriter, x *exchange) error {
	events := newEventStream(w, s.opts.ClientTimeout)
	defer events.end()
	to := &streamer{x: x, events: events, open: make([]bool, len(x.tasks))}
	if err := x.run(ctx, s, to); err != nil {
		if events.started {
			_ = events.send(errorBody{toAPIError(err)}) // if the client is there to read it
			w.Header().Set(timingHeader, x.report.header())
		}
		return err
	}
	if x.params.includeUsage {
		if err := events.send(x.shape.total(x, newUsageObject(x.usage()), x.report)); err != nil {
			return err
		}
	}
	w.Header().Set(timingHeader, x.report.header())
	return events.done()
}

// prepareChat reads the body of /v1/chat/completions.
func (s *Server) prepareChat(x *exchange, body []byte) error {
	var in chatRequest
	if err := decodeObject(body, "", s.rules.chat, &in); err != nil {
		return err
	}
	params, err := s.params(&in.commonRequest)
	if err != nil {
		return err
	}
	if params.sampling.Logprobs, err = chatTop(&in); err != nil {
		return err
	}
	name, limit, err := chatLimit(&in)
	if err != nil {
		return err
	}
	messages, err := s.readMessages(in.Messages)
	if err != nil {
		return err
	}
	open := in.AddGenerationPrompt == nil || *in.AddGenerationPrompt
	return s.planChat(x, params, messages, open, name, limit)
}

// planChat turns a chat into the exchange's tasks.
func (s *Server) planChat(x *exchange, params genParams, messages []chat.Message, open bool, limitName string, limit *int) error {
	if s.opts.Template == nil {
		return unsupported("messages", "the model has no chat template; write the prompt yourself on /v1/completions")
	}
	prompt, err := s.encodeChat(messages, open)
	if err != nil {
		return err
	}
	most, err := s.fitContext(limitName, len(prompt), limit, s.opts.MaxContext, 1)
	if err != nil {
		return err
	}
	x.params, x.model, x.shape = params, params.model, chatShape{s}
	x.addTasks(choiceTask{req: &terse.Request{Prompt: prompt, MaxTokens: most}})
	return nil
}

// chatTop is the number of alternatives to report with each token, -1 for no
// log-probabilities at all.
func chatTop(in *chatRequest) (int, error) {
	if !in.Logprobs {
		if in.TopLogprobs != nil {
			return 0, badField("top_logprobs", "'top_logprobs' is allowed only with 'logprobs': true")
		}
		return -1, nil
	}
	return intIn("top_logprobs", in.TopLogprobs, 0, 0, maxTop)
}

// chatLimit is the limit on the answer under its newer or older name.
func chatLimit(in *chatRequest) (name string, limit *int, err error) {
	older, newer := in.MaxTokens, in.MaxCompletionTokens
	switch {
	case newer == nil:
		return "max_tokens", older, nil
	case older != nil && *older != *newer:
		return "", nil, badField("max_tokens", "'max_tokens' is %d and 'max_completion_tokens' is %d: give one of them", *older, *newer)
	}
	return "max_completion_tokens", newer, nil
}

// OpenAI's default of max_tokens for completions.
const completionTokens = 16

// prepareCompletion reads the body of /v1/completions.
func (s *Server) prepareCompletion(x *exchange, body []byte) error {
	var in completionRequest
	if err := decodeObject(body, "", s.rules.completion, &in); err != nil {
		return err
	}
	params, err := s.params(&in.commonRequest)
	if err != nil {
		return err
	}
	if in.BestOf != nil && *in.BestOf != 1 && *in.BestOf != params.n {
		return unsupported("best_of", "answers are not ranked; leave it out, or give it the value of n")
	}
	if in.Logprobs != nil {
		if params.sampling.Logprobs, err = intIn("logprobs", in.Logprobs, 0, 0, maxTop); err != nil {
			return err
		}
		if in.Echo {
			params.sampling.PromptLogprobs = params.sampling.Logprobs
		}
	}
	prompts, err := readPrompts(in.Prompt, maxSequences/params.n)
	if err != nil {
		return err
	}
	x.params, x.model, x.shape = params, params.model, completionShape{s}
	for i, p := range prompts {
		if err := s.planCompletion(x, &in, p, promptName(i, len(prompts))); err != nil {
			return err
		}
	}
	return nil
}

func promptName(i, of int) string {
	if of == 1 {
		return "prompt"
	}
	return fmt.Sprintf("prompt[%d]", i)
}

// planCompletion adds the tasks of one prompt.
func (s *Server) planCompletion(x *exchange, in *completionRequest, p promptInput, name string) error {
	tokens, begun, err := s.promptTokens(in, p, name)
	if err != nil {
		return err
	}
	most, err := s.fitContext("max_tokens", len(tokens), in.MaxTokens, completionTokens, 0)
	if err != nil {
		return err
	}
	task := choiceTask{req: &terse.Request{Prompt: tokens, MaxTokens: most}, keepStop: true}
	if in.Echo {
		var text *string
		if !p.isToken {
			text = &p.text
		}
		task.echo = s.newEcho(tokens, text, begun, in.Logprobs != nil)
	}
	x.addTasks(task)
	return nil
}

// promptTokens is a prompt in tokens, the first begun of which are not part of
// its text.
func (s *Server) promptTokens(in *completionRequest, p promptInput, name string) (tokens []terse.Token, begun int, err error) {
	if p.isToken {
		if len(p.tokens) == 0 {
			return nil, 0, badField(name, "'%s' has no tokens: the model needs at least one to begin with", name)
		}
		return p.tokens, 0, s.checkTokens(name, p.tokens)
	}
	begin := in.AddSpecialTokens == nil || *in.AddSpecialTokens
	tokens, err = s.encodeRaw(name, p.text, begin)
	if bos, ok := s.opts.Tokenizer.BOS(); err == nil && begin && ok && tokens[0] == bos {
		begun = 1
	}
	return tokens, begun, err
}

// addTasks adds the choices of one prompt.
func (x *exchange) addTasks(of choiceTask) {
	for i := range x.params.n {
		task, req := of, *of.req
		if of.echo != nil {
			task.echo = of.echo.clone()
		}
		req.ID = fmt.Sprintf("%s-%d", x.id, len(x.tasks))
		req.Sampling = x.params.sampling
		req.Sampling.Seed += uint64(i)
		req.StopTokens = x.params.stopTokens
		task.req, task.stops = &req, x.params.stops
		x.tasks = append(x.tasks, &task)
	}
}
