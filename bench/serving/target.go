package serving

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/terse-llm/terse"
)

// Target is an endpoint that is measured.
type Target struct {
	Name  string // as reported
	URL   string // up to and including /v1
	Key   string // "" for none
	Model string
	// Text turns a prompt into text for endpoints that have another tokenizer; nil
	// sends token ids.
	Text func([]terse.Token) string
	// HeldKV is how many bytes of KV cache the endpoint's workers hold now; nil where
	// that is not known.
	HeldKV func() int64
	// Whole is the name of the target that differs in reading all planes from the
	// start; "" where this one does.
	Whole string
}

// Timing is a server's own account of a request, in milliseconds and bytes.
type Timing struct {
	Queue         float64 `json:"queue_ms"`
	Prefill       float64 `json:"prefill_ms"`
	Quantise      float64 `json:"quantise_ms"`
	Transfer      float64 `json:"transfer_ms"`
	Wait          float64 `json:"wait_ms"`
	Decode        float64 `json:"decode_ms"`
	Attend        float64 `json:"attend_ms"`
	Pack          float64 `json:"pack_ms"`
	Unpack        float64 `json:"unpack_ms"`
	TransferTotal float64 `json:"transfer_total_ms"`
	KVBytes       int64   `json:"kv_bytes"`
	KVSecond      int64   `json:"kv_bytes_second,omitempty"`
	TopTokens     int     `json:"top_plane_tokens,omitempty"`
	Adoption      float64 `json:"adoption_ms,omitempty"`
	Planes        string  `json:"planes,omitempty"`
	KVBytesF16    int64   `json:"kv_bytes_f16"`
	Route         string  `json:"route"`
}

// Outcome is what became of one request. Times are seconds from its arrival.
type Outcome struct {
	Target string    `json:"target"`
	Round  int       `json:"round"`
	Number int       `json:"request"` // in the workload
	Input  int       `json:"input"`   // tokens, as the server counts them
	Cached int       `json:"cached"`  // of them, found in a prefix cache
	Output int       `json:"output"`
	TTFT   float64   `json:"ttft_s"`
	JCT    float64   `json:"jct_s"`
	Gaps   []float64 `json:"-"` // between events
	text   []byte
	Timing *Timing `json:"timing,omitempty"`
	Error  string  `json:"error,omitempty"`
}

// TPOT is the mean time of a token after the first, 0 where there is none.
func (o *Outcome) TPOT() float64 {
	if o.Output < 2 {
		return 0
	}
	return (o.JCT - o.TTFT) / float64(o.Output-1)
}

// event is a chunk of a streamed completion.
type event struct {
	Choices []struct {
		Text   string `json:"text"`
		Finish string `json:"finish_reason"`
	} `json:"choices"`
	Usage *struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Details    *struct {
			Cached int `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
	} `json:"usage"`
	Timing *Timing `json:"terse"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

const maxEvent = 4 << 20 // bytes

// ask sends a request and reads its answer to the end. A failure is in the
// outcome: the others go on.
func (t *Target) ask(ctx context.Context, client *http.Client, prompt []terse.Token, output int, arrival time.Time) Outcome {
	o := Outcome{Target: t.Name}
	if err := t.stream(ctx, client, prompt, output, arrival, &o); err != nil {
		o.Error = err.Error()
	}
	return o
}

func (t *Target) stream(ctx context.Context, client *http.Client, prompt []terse.Token, output int, arrival time.Time, o *Outcome) error {
	body := map[string]any{
		"model": t.Model, "prompt": prompt, "max_tokens": output, "temperature": 0, "ignore_eos": true,
		"stream": true, "stream_options": map[string]any{"include_usage": true},
	}
	if t.Text != nil {
		body["prompt"] = t.Text(prompt)
	}
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(t.URL, "/")+"/completions", bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if t.Key != "" {
		req.Header.Set("Authorization", "Bearer "+t.Key)
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
		return fmt.Errorf("%s: %s", res.Status, bytes.TrimSpace(said))
	}
	return o.read(res.Body, arrival)
}

// read follows server-sent events to their end.
func (o *Outcome) read(r io.Reader, arrival time.Time) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEvent)
	events, done := 0, false
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data:"))
		if !ok {
			continue
		}
		if data = bytes.TrimSpace(data); string(data) == "[DONE]" {
			done = true
			break
		}
		var e event
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("cannot read an event of the answer: %w", err)
		}
		if e.Error != nil {
			return fmt.Errorf("the server ended the answer: %s", e.Error.Message)
		}
		now := time.Since(arrival).Seconds()
		if len(e.Choices) > 0 && e.Choices[0].Text != "" {
			events++
			o.token(now, events)
			o.text = append(o.text, e.Choices[0].Text...)
		}
		if len(e.Choices) > 0 && e.Choices[0].Finish != "" {
			o.JCT = now // tokens without text may have come last
		}
		o.account(&e)
	}
	switch {
	case lines.Err() != nil:
		return lines.Err()
	case !done:
		return fmt.Errorf("the answer broke off after %d events", events)
	case events == 0:
		return fmt.Errorf("the answer had no text")
	}
	if o.Output == 0 { // no usage: as many tokens as events is the best guess
		o.Output = events
	}
	return nil
}

// token notes an event with text at a time since the arrival.
func (o *Outcome) token(at float64, number int) {
	if number == 1 {
		o.TTFT = at
	} else {
		o.Gaps = append(o.Gaps, at-o.JCT)
	}
	o.JCT = at
}

func (o *Outcome) account(e *event) {
	if e.Usage != nil {
		o.Input, o.Output = e.Usage.Prompt, e.Usage.Completion
		if e.Usage.Details != nil {
			o.Cached = e.Usage.Details.Cached
		}
	}
	if e.Timing != nil {
		o.Timing = e.Timing
	}
}
