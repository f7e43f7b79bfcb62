package gateway

import (
	"slices"
	"strings"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/tokenizer"
	"github.com/terse-llm/terse/tokenizer/chat"
)

// vocabulary is what the gateway needs to know of a tokenizer beforehand.
type vocabulary struct {
	size     int
	longest  int      // bytes of the longest token
	controls []string // texts that the tokenizer would read as control tokens, the longest first
}

func newVocabulary(t *tokenizer.Tokenizer) (vocabulary, error) {
	v := vocabulary{size: t.Size(), longest: 1}
	for id := range terse.Token(v.size) {
		text := t.TokenText(id)
		v.longest = max(v.longest, len(text))
		control, err := isControl(t, id, text)
		if err != nil {
			return v, err
		}
		if control {
			v.controls = append(v.controls, text)
		}
	}
	slices.SortStableFunc(v.controls, func(a, b string) int { return len(b) - len(a) })
	return v, nil
}

// isControl asks the tokenizer itself, after sorting out the many tokens that
// are none by their looks.
func isControl(t *tokenizer.Tokenizer, id terse.Token, text string) (bool, error) {
	looks := t.IsSpecial(id) || strings.HasPrefix(text, "<") && strings.HasSuffix(text, ">")
	for _, named := range []func() (terse.Token, bool){t.BOS, t.EOS, t.Pad, t.Unknown} {
		other, ok := named()
		looks = looks || ok && other == id
	}
	if !looks || text == "" {
		return false, nil
	}
	parsed, err := t.Encode(text, tokenizer.EncodeOptions{ParseSpecial: true})
	if err != nil {
		return false, err
	}
	plain, err := t.Encode(text, tokenizer.EncodeOptions{})
	return !slices.Equal(parsed, plain), err
}

// encodeChat renders a chat and turns it into tokens. No text of a message
// becomes a control token; doc.go says how.
func (s *Server) encodeChat(messages []chat.Message, open bool) ([]terse.Token, error) {
	size := 0
	for _, m := range messages {
		size += len(m.Content)
	}
	if err := s.checkSize(size); err != nil {
		return nil, err
	}
	marks := newMarks(s.vocab.controls)
	guarded := slices.Clone(messages)
	for i := range guarded {
		guarded[i].Content = marks.guard(guarded[i].Content)
	}
	rendered, err := s.opts.Template.Render(chat.Input{Messages: guarded, AddGenerationPrompt: open})
	if err != nil {
		reason, _ := marks.restore(err.Error()) // it may quote a message
		return nil, badField("messages", "%s", reason)
	}
	text, plain := marks.restore(rendered)
	return s.encode("messages", text, tokenizer.EncodeOptions{ParseSpecial: true, Plain: plain})
}

// encodeRaw turns the raw prompt of a completion into tokens; begin adds what
// the model expects around a text.
func (s *Server) encodeRaw(param, text string, begin bool) ([]terse.Token, error) {
	if err := s.checkSize(len(text)); err != nil {
		return nil, err
	}
	return s.encode(param, text, tokenizer.EncodeOptions{ParseSpecial: true, AddSpecial: begin})
}

func (s *Server) encode(param, text string, opts tokenizer.EncodeOptions) ([]terse.Token, error) {
	tokens, err := s.opts.Tokenizer.Encode(text, opts)
	if err != nil {
		return nil, badField(param, "'%s': %v", param, err)
	}
	if len(tokens) == 0 {
		return nil, badField(param, "'%s' has no tokens: the model needs at least one to begin with", param)
	}
	return tokens, nil
}

// checkSize refuses a text that cannot fit the context however it is split,
// before the work of splitting it. Tokenizers may shorten text as they
// normalise it, never to less than a quarter in any of Unicode's forms.
func (s *Server) checkSize(bytes int) error {
	least := bytes / (4 * s.vocab.longest)
	if least <= s.opts.MaxContext {
		return nil
	}
	return tooLong("the context is %d tokens, the prompt of %d bytes has at least %d: shorten it", s.opts.MaxContext, bytes, least)
}

// checkTokens refuses ids outside the vocabulary.
func (s *Server) checkTokens(param string, tokens []terse.Token) error {
	for i, t := range tokens {
		if t < 0 || int(t) >= s.vocab.size {
			return badField(param, "'%s' has token %d at place %d, the vocabulary has %d tokens", param, t, i, s.vocab.size)
		}
	}
	return nil
}
