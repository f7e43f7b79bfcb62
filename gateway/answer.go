package gateway

import (
	"strings"
	"unicode/utf8"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/tokenizer"
)

// scoredToken is a generated or echoed token with its place in the text.
type scoredToken struct {
	terse.Scored
	null   bool // the first token of a prompt has no log-probability
	at     int  // bytes of text before it
	offset int  // code points of text before it
}

// delta is a step of an answer: text that is final, and the tokens that begin
// in it.
type delta struct {
	text   string
	scores []scoredToken
}

// answerText turns the tokens of one choice into text, looking for stop
// strings across the borders of tokens. Text is released as soon as no stop
// string can begin in it any more.
type answerText struct {
	stream   *tokenizer.Stream
	stops    []string
	held     string        // decoded, not released
	released int           // bytes
	runes    int           // code points, released or held
	waiting  []scoredToken // tokens whose text is held
	stopped  bool          // a stop string was found; nothing more is taken
}

// push takes the next token, with its score where one was asked for.
func (a *answerText) push(t terse.Token, score *terse.Scored) delta {
	a.note(score)
	return a.take(a.stream.Push(t))
}

// note puts a token that carries no text at the end of the answer.
func (a *answerText) note(score *terse.Scored) {
	if score != nil {
		a.waiting = append(a.waiting, scoredToken{Scored: *score, at: a.released + len(a.held), offset: a.runes})
	}
}

func (a *answerText) take(text string) delta {
	a.runes += utf8.RuneCountInString(text)
	a.held += text
	if at := firstStop(a.held, a.stops); at >= 0 {
		a.stopped = true
		d := a.release(at)
		a.held, a.waiting = "", nil
		return d
	}
	return a.release(len(a.held) - prefixAtEnd(a.held, a.stops))
}

// release lets n held bytes go, and the tokens that begin in them.
func (a *answerText) release(n int) delta {
	d := delta{text: a.held[:n]}
	a.held = a.held[n:]
	a.released += n
	for len(a.waiting) > 0 && a.waiting[0].at < a.released {
		d.scores = append(d.scores, a.waiting[0])
		a.waiting = a.waiting[1:]
	}
	return d
}

// finish releases what is left when the tokens have ended.
func (a *answerText) finish() delta {
	if a.stopped {
		return delta{}
	}
	d := a.take(a.stream.Flush())
	if a.stopped {
		return d
	}
	rest := a.release(len(a.held))
	d.text += rest.text
	d.scores = append(append(d.scores, rest.scores...), a.waiting...)
	a.waiting = nil
	return d
}

// firstStop is the offset of the stop string in text that is complete first, or
// -1; of two that end together, of the longer one. So where an answer ends does not
// depend on how its text was cut into tokens.
func firstStop(text string, stops []string) int {
	first, end := -1, 0
	for _, stop := range stops {
		i := strings.Index(text, stop)
		if e := i + len(stop); i >= 0 && (first < 0 || e < end || e == end && i < first) {
			first, end = i, e
		}
	}
	return first
}

// prefixAtEnd is the length of the longest proper beginning of one of the words
// with which text ends.
func prefixAtEnd(text string, words []string) int {
	longest := 0
	for _, w := range words {
		for n := min(len(w)-1, len(text)); n > longest; n-- {
			if strings.HasSuffix(text, w[:n]) {
				longest = n
			}
		}
	}
	return longest
}
