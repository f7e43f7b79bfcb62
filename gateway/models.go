package gateway

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/tokenizer"
)

// modelObject is OpenAI's object model, with vLLM's max_model_len.
type modelObject struct {
	ID          string `json:"id"`
	Object      string `json:"object"`
	Created     int64  `json:"created"`
	OwnedBy     string `json:"owned_by"`
	MaxModelLen int    `json:"max_model_len"`
}

func (s *Server) model(id string) modelObject {
	created := int64(0)
	if !s.opts.Created.IsZero() {
		created = s.opts.Created.Unix()
	}
	return modelObject{ID: id, Object: "model", Created: created, OwnedBy: "terse", MaxModelLen: s.opts.MaxContext}
}

func (s *Server) listModels(w http.ResponseWriter, _ *http.Request) error {
	list := struct {
		Object string        `json:"object"`
		Data   []modelObject `json:"data"`
	}{Object: "list"}
	for _, id := range s.opts.Models {
		list.Data = append(list.Data, s.model(id))
	}
	writeJSON(w, http.StatusOK, list)
	return nil
}

func (s *Server) getModel(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	if !slices.Contains(s.opts.Models, id) {
		return noModel(id)
	}
	writeJSON(w, http.StatusOK, s.model(id))
	return nil
}

// status is what the probes answer.
type status struct {
	Status string `json:"status"`
	Error  string `json:"error,omitempty"`
}

func writeStatus(w http.ResponseWriter, err error) {
	if err != nil {
		writeJSON(w, http.StatusServiceUnavailable, status{"unavailable", err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, status{Status: "ok"})
}

// healthz fails when the process should be restarted.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) error {
	var err error
	if s.opts.Health != nil {
		err = s.opts.Health()
	}
	writeStatus(w, err)
	return nil
}

// readyz fails while no request could be run.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) error {
	writeStatus(w, s.opts.Dispatcher.Ready())
	return nil
}

// tokenizeRequest is vLLM's: a prompt, or messages as a chat would send them.
type tokenizeRequest struct {
	Model               string          `json:"model"`
	Prompt              *string         `json:"prompt"`
	Messages            json.RawMessage `json:"messages"`
	AddSpecialTokens    *bool           `json:"add_special_tokens"`
	AddGenerationPrompt *bool           `json:"add_generation_prompt"`
	ReturnTokenStrs     bool            `json:"return_token_strs"`
}

type tokenizeAnswer struct {
	Count       int           `json:"count"`
	MaxModelLen int           `json:"max_model_len"`
	Tokens      []terse.Token `json:"tokens"`
	TokenStrs   []string      `json:"token_strs"`
}

// read takes a request in and decodes its body by rules; leave is called when it
// has been answered.
func (s *Server) read(w http.ResponseWriter, r *http.Request, rules fieldRules, to any) (leave func(), err error) {
	if leave, err = s.enter(); err != nil {
		return nil, err
	}
	body, err := s.readBody(w, r)
	if err == nil {
		err = decodeObject(body, "", rules, to)
	}
	if err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

func (s *Server) tokenize(w http.ResponseWriter, r *http.Request) error {
	var in tokenizeRequest
	leave, err := s.read(w, r, s.rules.tokenize, &in)
	if err != nil {
		return err
	}
	defer leave()
	if _, err := s.checkModel(in.Model); err != nil {
		return err
	}
	tokens, err := s.tokenizeText(&in)
	if err != nil {
		return err
	}
	out := tokenizeAnswer{Count: len(tokens), MaxModelLen: s.opts.MaxContext, Tokens: tokens}
	if in.ReturnTokenStrs {
		out.TokenStrs = []string{}
		for _, t := range tokens {
			out.TokenStrs = append(out.TokenStrs, tokenName(s.opts.Tokenizer.TokenBytes(t), ""))
		}
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

// tokenizeText has no limit but the body's: counting tokens of a text that is
// too long is what the endpoint is for.
func (s *Server) tokenizeText(in *tokenizeRequest) ([]terse.Token, error) {
	switch {
	case in.Prompt != nil && !isNull(in.Messages):
		return nil, badField("messages", "give 'prompt' or 'messages', not both")
	case in.Prompt != nil:
		begin := in.AddSpecialTokens == nil || *in.AddSpecialTokens
		tokens, err := s.opts.Tokenizer.Encode(*in.Prompt, tokenizer.EncodeOptions{ParseSpecial: true, AddSpecial: begin})
		if tokens == nil {
			tokens = []terse.Token{}
		}
		return tokens, err
	case isNull(in.Messages):
		return nil, missing("prompt")
	}
	messages, err := s.readMessages(in.Messages)
	if err != nil {
		return nil, err
	}
	return s.encodeChat(messages, in.AddGenerationPrompt == nil || *in.AddGenerationPrompt)
}

type detokenizeRequest struct {
	Model  string          `json:"model"`
	Tokens json.RawMessage `json:"tokens"`
}

type detokenizeAnswer struct {
	Prompt string `json:"prompt"`
}

func (s *Server) detokenize(w http.ResponseWriter, r *http.Request) error {
	var in detokenizeRequest
	leave, err := s.read(w, r, s.rules.detokenize, &in)
	if err != nil {
		return err
	}
	defer leave()
	if _, err := s.checkModel(in.Model); err != nil {
		return err
	}
	if isNull(in.Tokens) {
		return missing("tokens")
	}
	tokens, err := readTokens(in.Tokens, "tokens")
	if err != nil {
		return err
	}
	if err := s.checkTokens("tokens", tokens); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, detokenizeAnswer{s.opts.Tokenizer.Decode(tokens, false)})
	return nil
}
