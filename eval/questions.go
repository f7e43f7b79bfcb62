package eval

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/tokenizer"
)

// question is one case of a task.
type question struct {
	prompt []terse.Token // a user's turn and the beginning of the assistant's
	later  []terse.Token // what is appended to it token by token before the answer
	answer string
	depth  float64 // where in the text the answer stands, 0 to 1
}

// turnTokens are the control tokens of a chat.
type turnTokens struct{ user, assistant, end terse.Token }

// author makes questions out of the built-in texts.
type author struct {
	tok   *tokenizer.Tokenizer
	chat  turnTokens
	texts [][]terse.Token
}

func newAuthor(tok *tokenizer.Tokenizer) (*author, error) {
	chat, ok := chatTokens(tok)
	if !ok {
		return nil, fmt.Errorf("cannot run tasks on this model: it lacks one of the control tokens <|user|>, <|end|> and <|assistant|> that they are written for (--tasks none leaves them out)")
	}
	a := &author{tok: tok, chat: chat}
	for _, name := range []string{"books", "children"} {
		docs, err := Text(name)
		if err != nil {
			return nil, err
		}
		ids, err := tok.Encode(strings.Join(docs, "\n"), tokenizer.EncodeOptions{})
		if err != nil {
			return nil, err
		}
		a.texts = append(a.texts, ids)
	}
	return a, nil
}

// questions are scene n of a task, the cases from scene(task)·n on. They depend on
// nothing else: every format and every machine asks the same.
func (a *author) questions(task string, length, n int) ([]question, error) {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d", task, length)
	rng := rand.New(rand.NewPCG(h.Sum64(), uint64(n)))
	switch task {
	case "retrieval":
		return a.retrieval(rng, length)
	case "recall":
		return a.recall(rng, length)
	case "quote":
		q, err := a.quote(rng, length)
		return []question{q}, err
	case "late":
		return a.late(rng, length)
	}
	return nil, fmt.Errorf("there is no task %q: choose of %s", task, strings.Join(TaskNames(), ", "))
}

// turn wraps a user's words in the control tokens of a chat. Each piece is encoded
// by itself, as in training: a quotation mark must not melt into the full stop
// before it.
func (a *author) turn(answer string, pieces ...string) (question, error) {
	prompt := []terse.Token{a.chat.user}
	for _, words := range pieces {
		ids, err := a.tok.Encode(words, tokenizer.EncodeOptions{})
		if err != nil {
			return question{}, err
		}
		prompt = append(prompt, ids...)
	}
	return question{prompt: append(prompt, a.chat.end, a.chat.assistant), answer: answer}, nil
}

// fit asks build for a question with ever better guesses of how much running
// text fills its prompt up to length tokens: what is added to the text, and where
// words meet, costs tokens too. The text of n tokens begins where that of n+1
// does, so that a guess changes the length by its difference only.
func fit(length int, build func(fill int) (question, error)) (question, error) {
	fill := length
	for range 4 {
		q, err := build(fill)
		if err != nil || len(q.prompt) == length {
			return q, err
		}
		if fill += length - len(q.prompt); fill < 0 {
			return question{}, fmt.Errorf("cannot ask a question in a prompt of %d tokens: give at least %d", length, length-fill)
		}
	}
	return build(fill)
}

// passage is a place in the running text.
type passage struct {
	text []terse.Token
	at   int
}

// somewhere chooses a passage of at most n tokens.
func (a *author) somewhere(rng *rand.Rand, n int) (passage, error) {
	text := a.texts[rng.IntN(len(a.texts))]
	if len(text) <= n {
		return passage{}, fmt.Errorf("the built-in texts are too short for a prompt of %d tokens", n)
	}
	return passage{text, rng.IntN(len(text) - n)}, nil
}

// words is the passage's first n tokens as text.
func (a *author) words(p passage, n int) string {
	return a.tok.Decode(p.text[p.at:min(p.at+n, len(p.text))], false)
}

// sentenceStarts are the offsets where a sentence begins after another on the
// same line.
func sentenceStarts(text string) []int {
	var starts []int
	for i := 2; i < len(text); i++ {
		if text[i-1] == ' ' && strings.IndexByte(".!?", text[i-2]) >= 0 {
			starts = append(starts, i)
		}
	}
	return starts
}

// colors and things name what facts and keys are about.
func colors() []string {
	return []string{"red", "pink", "white", "silver", "purple", "blue", "green", "yellow"}
}

func things() []string {
	return []string{"box", "bag", "chair", "map", "chest", "ladder", "cup", "lamp", "bottle", "book"}
}
