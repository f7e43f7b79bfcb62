package gateway

import (
	"slices"
	"unicode/utf8"

	"github.com/terse-llm/terse"
)

// promptEcho is a prompt that is sent back before its answer, with the
// log-probabilities of its tokens where they were asked for.
type promptEcho struct {
	text   string
	runes  int           // code points of text
	tokens []scoredToken // one per prompt token; scores filled in as they come
	scored bool          // scores are wanted
	have   int           // tokens that have theirs
}

// newEcho lays a prompt's tokens out over its text. A nil text is the tokens'
// own; of a given one the first begun tokens are no part.
func (s *Server) newEcho(prompt []terse.Token, text *string, begun int, scored bool) *promptEcho {
	e := &promptEcho{scored: scored, have: 1} // nothing comes before the first token, so it has no score
	stream := s.opts.Tokenizer.NewStream(false)
	var decoded []byte
	for i, t := range prompt {
		e.tokens = append(e.tokens, scoredToken{
			Scored: terse.Scored{Logprob: terse.Logprob{Token: t}}, null: i == 0, offset: e.runes,
		})
		if i >= begun {
			part := stream.Push(t)
			decoded = append(decoded, part...)
			e.runes += utf8.RuneCountInString(part)
		}
	}
	e.text = string(append(decoded, stream.Flush()...))
	if text != nil {
		e.text = *text
	}
	e.runes = utf8.RuneCountInString(e.text)
	return e
}

// take fills in scores that came: those of the tokens from the second on, in
// order. It reports whether all are there.
func (e *promptEcho) take(scores []terse.Scored) bool {
	for _, score := range scores {
		if e.have < len(e.tokens) {
			e.tokens[e.have].Scored = score
			e.have++
		}
	}
	return !e.scored || e.have == len(e.tokens)
}

// delta is the whole prompt as one step of the answer.
func (e *promptEcho) delta() delta {
	d := delta{text: e.text}
	if e.scored {
		d.scores = e.tokens
	}
	return d
}

// clone is an echo for another choice of the same prompt.
func (e *promptEcho) clone() *promptEcho {
	c := *e
	c.tokens = slices.Clone(e.tokens)
	return &c
}
