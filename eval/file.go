package eval

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/model/session"
	"github.com/terse-llm/terse/tokenizer"
)

// FileCase is one line of a task file.
type FileCase struct {
	Prompt   string   `json:"prompt"`
	Answer   string   `json:"answer,omitempty"`
	Answers  []string `json:"answers,omitempty"`  // each of them right; Answer is one more
	Metric   string   `json:"metric"`             // of Metrics; the same in every line
	Complete bool     `json:"complete,omitempty"` // go on with the prompt as it is, not as a turn of a chat
	Stop     string   `json:"stop,omitempty"`     // the answer ends where it says this, white space in front aside
}

const (
	maxLine       = 1 << 20
	maxFileCases  = 10000
	maxAnswers    = 32
	maxAnswerText = 16 << 10 // bytes: the edit distance takes the square
)

// ReadTaskFile reads a task file: JSON objects, one a line, gzipped or not.
func ReadTaskFile(file io.Reader) ([]FileCase, error) {
	r, err := plain(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the task file: %w", err)
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	var cases []FileCase
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		c, err := parseCase(lines.Bytes())
		if err == nil && len(cases) > 0 && c.Metric != cases[0].Metric {
			err = fmt.Errorf("metric is %s, line 1's is %s: give each its own file", c.Metric, cases[0].Metric)
		}
		if err == nil && len(cases) == maxFileCases {
			err = fmt.Errorf("more than %d cases", maxFileCases)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the task file: line %d: %w", n, err)
		}
		cases = append(cases, c)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("cannot read the task file: %w", err)
	}
	if len(cases) == 0 {
		return nil, fmt.Errorf("cannot read the task file: it has no cases")
	}
	return cases, nil
}

func parseCase(line []byte) (FileCase, error) {
	var c FileCase
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, err
	}
	if d.More() {
		return c, fmt.Errorf("more than one value")
	}
	if c.Answer != "" {
		c.Answers, c.Answer = append(c.Answers, c.Answer), ""
	}
	switch {
	case strings.TrimSpace(c.Prompt) == "":
		return c, fmt.Errorf("prompt is missing")
	case len(c.Answers) == 0 || len(c.Answers) > maxAnswers:
		return c, fmt.Errorf("%d answers, want 1 to %d", len(c.Answers), maxAnswers)
	case !slices.Contains(Metrics(), c.Metric):
		return c, fmt.Errorf("metric is %q, want one of %s", c.Metric, strings.Join(Metrics(), ", "))
	case slices.ContainsFunc(c.Answers, func(a string) bool { return len(a) > maxAnswerText }):
		return c, fmt.Errorf("an answer is longer than %d bytes", maxAnswerText)
	}
	return c, nil
}

// RunFile answers the cases greedily by maxAnswer tokens at most and scores them.
// Prompts are turns of the built-in model's chat where the tokenizer has its
// control tokens. A prompt that does not fit loses its beginning, alike in every
// format. progress is told the share done, 0 to 1.
func RunFile(ctx context.Context, s Subject, tok *tokenizer.Tokenizer, name, format string, cases []FileCase, part Part, progress func(done float64)) (TaskResult, error) {
	result, numbers := part.begin(TaskResult{Task: name, Metric: cases[0].Metric, Format: format}, len(cases))
	chat, chats := chatTokens(tok)
	for i, n := range numbers {
		if err := ctx.Err(); err != nil {
			return result, err
		}
		c := cases[n]
		prompt, err := tok.Encode(c.Prompt, tokenizer.EncodeOptions{AddSpecial: !chats})
		if err != nil {
			return result, err
		}
		prompt = prompt[max(0, len(prompt)-(s.Model.Config.MaxContext-maxAnswer-3)):] // 3 control tokens
		if chats && !c.Complete {
			prompt = append(append([]terse.Token{chat.user}, prompt...), chat.end, chat.assistant)
		}
		got, err := s.answer(tok, format, prompt, c.Stop, chat, chats)
		if err != nil {
			return result, err
		}
		result.add(score(c.Metric, got, c.Answers))
		progress(float64(i+1) / float64(len(numbers)))
	}
	return result, nil
}

// answer decodes greedily to the end of the turn or of the text, or to where it
// says stop.
func (s Subject) answer(tok *tokenizer.Tokenizer, format string, prompt []terse.Token, stop string, chat turnTokens, chats bool) (string, error) {
	run, err := s.session(format, len(prompt), len(prompt)+maxAnswer)
	if err != nil {
		return "", err
	}
	logits, err := prefill(run, prompt)
	if err != nil {
		return "", err
	}
	eos, ends := tok.EOS()
	var said []terse.Token
	for len(said) < maxAnswer {
		next := argmax(logits)
		if chats && next == chat.end || ends && next == eos {
			break
		}
		said = append(said, next)
		if text, over := until(tok.Decode(said, false), stop); over {
			return text, nil
		}
		if logits, err = run.Forward([]terse.Token{next}, session.LastLogits); err != nil {
			return "", err
		}
	}
	return tok.Decode(said, false), nil
}

// until cuts an answer where it says stop, and tells whether it does.
func until(text, stop string) (string, bool) {
	text = strings.TrimLeft(text, " \n")
	if stop == "" {
		return text, false
	}
	before, _, found := strings.Cut(text, stop)
	return before, found
}

// chatTokens are the built-in model's control tokens, if the tokenizer has them.
func chatTokens(tok *tokenizer.Tokenizer) (t turnTokens, ok bool) {
	var user, assistant, end bool
	t.user, user = tok.ID("<|user|>")
	t.assistant, assistant = tok.ID("<|assistant|>")
	t.end, end = tok.ID("<|end|>")
	return t, user && assistant && end
}
