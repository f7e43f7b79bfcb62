package cluster

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/terse-llm/terse"
)

// outputTail is the rare part of an output, as JSON; absent in token events.
type outputTail struct {
	Finish terse.FinishReason `json:",omitempty"`
	Usage  *terse.Usage       `json:",omitempty"`
	Timing *terse.Timing      `json:",omitempty"`
	Err    *terse.Error       `json:",omitempty"`
}

// maxErrorBytes bounds the message of an error that crosses the wire.
const maxErrorBytes = 4 << 10

// appendOutput packs tokens, scores, prompt scores and the tail.
func appendOutput(b []byte, out terse.Output) ([]byte, error) {
	b, err := appendTokens(b, out.Tokens)
	if err != nil {
		return nil, fmt.Errorf("cannot encode an output: %w", err)
	}
	for _, list := range [][]terse.Scored{out.Scores, out.Prompt} {
		if b, err = appendScored(b, list); err != nil {
			return nil, fmt.Errorf("cannot encode an output: %w", err)
		}
	}
	tail := outputTail{Finish: out.Finish, Usage: out.Usage, Timing: out.Timing, Err: out.Err}
	if tail == (outputTail{}) {
		return binary.AppendUvarint(b, 0), nil
	}
	if tail.Err != nil && len(tail.Err.Message) > maxErrorBytes {
		tail.Err = &terse.Error{Code: tail.Err.Code, Message: strings.ToValidUTF8(tail.Err.Message[:maxErrorBytes], "") + "…"}
	}
	tailJSON, err := json.Marshal(tail)
	if err != nil {
		return nil, fmt.Errorf("cannot encode an output: %w", err)
	}
	b = binary.AppendUvarint(b, uint64(len(tailJSON)))
	return append(b, tailJSON...), nil
}

func unmarshalOutput(data []byte) (terse.Output, error) {
	r := reader{data: data}
	out := terse.Output{Tokens: r.tokens(), Scores: r.scored(), Prompt: r.scored()}
	tailJSON := r.bytes()
	if err := r.end(); err != nil {
		return terse.Output{}, fmt.Errorf("cannot read an output: %w", err)
	}
	if len(tailJSON) == 0 {
		return out, nil
	}
	var tail outputTail
	if err := json.Unmarshal(tailJSON, &tail); err != nil {
		return terse.Output{}, fmt.Errorf("cannot read an output: %w", err)
	}
	out.Finish, out.Usage, out.Timing, out.Err = tail.Finish, tail.Usage, tail.Timing, tail.Err
	return out, nil
}

// Upper bounds of packed sizes, in bytes.
const (
	tokenBytes = binary.MaxVarintLen32
	tailBytes  = 8 * maxErrorBytes // JSON may write a byte as six, and there is the rest
)

func scoredBytes(s terse.Scored) int {
	const logprobBytes = tokenBytes + 4
	return logprobBytes + tokenBytes + logprobBytes*len(s.Top)
}

// splitOutput cuts an output into several of at most limit bytes each, in
// order: prompt scores, then tokens with their scores, then the rest.
func splitOutput(out terse.Output, limit int) ([]terse.Output, error) {
	room := limit - tailBytes
	if len(out.Scores) > 0 && len(out.Scores) != len(out.Tokens) {
		return nil, fmt.Errorf("cannot send an output with %d tokens and %d scores", len(out.Tokens), len(out.Scores))
	}
	prompts, err := cut(len(out.Prompt), room, func(i int) int { return scoredBytes(out.Prompt[i]) })
	if err != nil {
		return nil, fmt.Errorf("cannot send the prompt's scores: %w", err)
	}
	tokens, err := cut(len(out.Tokens), room, func(i int) int {
		if len(out.Scores) == 0 {
			return tokenBytes
		}
		return tokenBytes + scoredBytes(out.Scores[i])
	})
	if err != nil {
		return nil, fmt.Errorf("cannot send tokens with scores: %w", err)
	}
	if len(prompts)+len(tokens) <= 1 {
		return []terse.Output{out}, nil
	}
	var parts []terse.Output
	for _, p := range prompts {
		parts = append(parts, terse.Output{Prompt: out.Prompt[p.from:p.to]})
	}
	for _, t := range tokens {
		part := terse.Output{Tokens: out.Tokens[t.from:t.to]}
		if len(out.Scores) > 0 {
			part.Scores = out.Scores[t.from:t.to]
		}
		parts = append(parts, part)
	}
	last := &parts[len(parts)-1]
	last.Finish, last.Usage, last.Timing, last.Err = out.Finish, out.Usage, out.Timing, out.Err
	return parts, nil
}

type span struct{ from, to int }

// cut divides n elements into runs whose sizes add up to at most room.
func cut(n, room int, size func(int) int) ([]span, error) {
	var runs []span
	sum := room + 1 // the first element opens a run
	for i := range n {
		s := size(i)
		if s > room {
			return nil, fmt.Errorf("one element takes %d bytes, a message of the NATS server has %d: ask for fewer alternatives", s, room)
		}
		if sum+s > room {
			runs = append(runs, span{from: i})
			sum = 0
		}
		sum += s
		runs[len(runs)-1].to = i + 1
	}
	return runs, nil
}
