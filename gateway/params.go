package gateway

import (
	"crypto/rand"
	"encoding/binary"
	"math"
	"net/http"
	"strconv"

	"github.com/terse-llm/terse"
)

// Bounds of what one request may ask for.
const (
	maxChoices   = 16   // n
	maxSequences = 2048 // prompts times n
	maxTop       = 20   // top_logprobs
	maxBiases    = 1024 // entries of logit_bias
	// OpenAI's number for "so unlikely that it does not matter"; JSON has no -Inf.
	leastLogprob = -9999.0
)

// genParams is what a request asks of every one of its choices.
type genParams struct {
	model        string
	n            int
	stream       bool
	includeUsage bool
	stops        []string
	stopTokens   []terse.Token
	sampling     terse.Sampling
}

// params validates the shared fields.
func (s *Server) params(c *commonRequest) (genParams, error) {
	p := genParams{model: c.Model, stream: c.Stream, stops: c.Stop}
	var err error
	if p.model, err = s.checkModel(c.Model); err != nil {
		return p, err
	}
	if p.n, err = intIn("n", c.N, 1, 1, maxChoices); err != nil {
		return p, err
	}
	if p.includeUsage, err = s.readStreamOptions(c); err != nil {
		return p, err
	}
	if p.stopTokens, err = s.stopTokens(c); err != nil {
		return p, err
	}
	p.sampling, err = s.sampling(c)
	return p, err
}

// checkModel is the model's name in the answer; without one in the request the
// server's own.
func (s *Server) checkModel(name string) (string, error) {
	if name == "" {
		return s.opts.Models[0], nil
	}
	for _, m := range s.opts.Models {
		if m == name {
			return name, nil
		}
	}
	return "", noModel(name)
}

func noModel(name string) error {
	return &apiError{
		Status: http.StatusNotFound, Type: typeInvalid, Param: "model", Code: "model_not_found",
		Message: "the model '" + name + "' does not exist here; GET /v1/models lists those that do",
	}
}

func (s *Server) readStreamOptions(c *commonRequest) (includeUsage bool, err error) {
	if isNull(c.StreamOptions) {
		return false, nil
	}
	if !c.Stream {
		return false, badField("stream_options", "'stream_options' is allowed only with 'stream': true")
	}
	var o streamOptions
	err = decodeObject(c.StreamOptions, "stream_options", s.rules.streamOptions, &o)
	return o.IncludeUsage, err
}

func (s *Server) stopTokens(c *commonRequest) ([]terse.Token, error) {
	var stops []terse.Token
	if !c.IgnoreEOS {
		stops = append(stops, s.opts.StopTokens...)
	}
	if err := s.checkTokens("stop_token_ids", c.StopTokenIDs); err != nil {
		return nil, err
	}
	return append(stops, c.StopTokenIDs...), nil
}

func (s *Server) sampling(c *commonRequest) (terse.Sampling, error) {
	out := terse.Sampling{Logprobs: -1, PromptLogprobs: -1}
	for _, f := range []struct {
		name      string
		in        *float32
		otherwise float32
		low, high float32
		out       *float32
	}{
		{"temperature", c.Temperature, 1, 0, 2, &out.Temperature},
		{"top_p", c.TopP, 1, 0, 1, &out.TopP},
		{"min_p", c.MinP, 0, 0, 1, &out.MinP},
		{"repetition_penalty", c.RepetitionPenalty, 1, 0.01, 100, &out.RepetitionPenalty},
		{"presence_penalty", c.PresencePenalty, 0, -2, 2, &out.PresencePenalty},
		{"frequency_penalty", c.FrequencyPenalty, 0, -2, 2, &out.FrequencyPenalty},
	} {
		*f.out = f.otherwise
		if f.in == nil {
			continue
		}
		if *f.in < f.low || *f.in > f.high {
			return out, badField(f.name, "'%s' is %v, it must be between %v and %v", f.name, *f.in, f.low, f.high)
		}
		*f.out = *f.in
	}
	if out.TopP == 0 { // to an engine 0 means "off", to OpenAI the smallest nucleus
		out.TopP = math.SmallestNonzeroFloat32
	}
	var err error
	if out.TopK, err = intIn("top_k", c.TopK, 0, -1, math.MaxInt32); err != nil {
		return out, err
	}
	out.TopK = max(out.TopK, 0) // vLLM's -1 is off
	out.Seed = seedOf(c.Seed)
	out.LogitBias, err = s.logitBias(c.LogitBias)
	return out, err
}

func (s *Server) logitBias(in map[string]float32) (map[terse.Token]float32, error) {
	if len(in) == 0 {
		return nil, nil
	}
	if len(in) > maxBiases {
		return nil, badField("logit_bias", "'logit_bias' has %d entries, at most %d are allowed", len(in), maxBiases)
	}
	out := make(map[terse.Token]float32, len(in))
	for key, bias := range in {
		id, err := strconv.ParseInt(key, 10, 32)
		if err != nil || id < 0 || int(id) >= s.vocab.size {
			return nil, badField("logit_bias", "'logit_bias' has the key %q, keys must be token ids from 0 to %d", key, s.vocab.size-1)
		}
		if bias < -100 || bias > 100 {
			return nil, badField("logit_bias", "'logit_bias' of token %d is %v, it must be between -100 and 100", id, bias)
		}
		out[terse.Token(id)] = bias
	}
	return out, nil
}

// seedOf is the request's seed, or a fresh one.
func seedOf(in *int64) uint64 {
	if in != nil {
		return uint64(*in)
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

// intIn is the value of an integer field, checked against its bounds.
func intIn(name string, in *int, otherwise, low, high int) (int, error) {
	if in == nil {
		return otherwise, nil
	}
	if *in < low || *in > high {
		return 0, badField(name, "'%s' is %d, it must be between %d and %d", name, *in, low, high)
	}
	return *in, nil
}

// fitContext is the number of tokens to generate after a prompt, or why the
// two do not fit the context. A nil want takes otherwise, or what is left.
func (s *Server) fitContext(param string, prompt int, want *int, otherwise, least int) (int, error) {
	if want != nil && *want < least {
		return 0, badField(param, "'%s' is %d, it must be at least %d", param, *want, least)
	}
	limit := s.opts.MaxContext
	left := limit - prompt
	if left < 0 || left == 0 && (want == nil || *want > 0) {
		return 0, tooLong("the context is %d tokens, the prompt has %d: it must leave room for an answer; shorten it", limit, prompt)
	}
	if want == nil {
		return min(otherwise, left), nil
	}
	if *want > left {
		return 0, tooLong("the context is %d tokens, the prompt has %d and '%s' asks for %d more (%d together): lower one of them",
			limit, prompt, param, *want, prompt+*want)
	}
	return *want, nil
}

func tooLong(format string, args ...any) error {
	e := badField("", format, args...)
	e.Code = string(terse.CodeContextLength)
	return e
}
