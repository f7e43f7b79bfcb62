package route_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/route"
)

var rewrite = flag.Bool("rewrite", false, "write what Decide answers into testdata")

// TestScripts runs testdata/*.txt. A line "member ID key=value..." adds or
// replaces a worker, "leave ID" removes one, "decide key=value..." asks; the
// "= ..." line below it is the answer.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			got := runScript(t, string(want))
			if *rewrite {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
				return
			}
			require.Equal(t, string(want), got)
		})
	}
}

func runScript(t *testing.T, script string) string {
	t.Helper()
	var out strings.Builder
	var members []route.Candidate
	for line := range strings.Lines(script) {
		words := strings.Fields(line)
		if len(words) > 0 && words[0] == "=" {
			continue // written anew below its question
		}
		out.WriteString(line)
		if len(words) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		switch words[0] {
		case "member":
			members = append(without(members, words[1]), parseMember(t, words[1:]))
		case "leave":
			members = without(members, words[1])
		case "decide":
			fmt.Fprintln(&out, "=", answer(members, parseAsk(t, words[1:])))
		default:
			t.Fatalf("unknown line %q", line)
		}
	}
	return out.String()
}

func without(members []route.Candidate, id string) []route.Candidate {
	var kept []route.Candidate
	for _, m := range members {
		if m.ID != id {
			kept = append(kept, m)
		}
	}
	return kept
}

func answer(members []route.Candidate, ask route.Ask) string {
	d, err := route.Decide(members, ask)
	if err != nil {
		return fmt.Sprintf("%s: %v", terse.CodeOf(err), err)
	}
	if d.Split != (d.Prefill != "") {
		return fmt.Sprintf("contradiction: %+v", d)
	}
	text := fmt.Sprintf("%s  (%s)", d.Decode, d.Reason)
	if d.Split {
		text = d.Prefill + " -> " + text
	}
	if d.First > 0 {
		text += fmt.Sprintf(" first token after %v", d.First.Round(time.Millisecond))
	}
	if d.Planes != "" && !strings.Contains(d.Planes, "no second planes") {
		text += "; " + d.Planes
	}
	if d.Apart != strings.HasPrefix(d.Planes, "apart") {
		return fmt.Sprintf("contradiction: %+v", d)
	}
	return text
}

func parseMember(t *testing.T, words []string) route.Candidate {
	t.Helper()
	c := route.Candidate{ID: words[0], Model: "tiny", ModelHash: "m1", Calibration: "c1", Format: "hq3"}
	for key, value := range pairs(t, words[1:]) {
		switch key {
		case "role":
			c.Role = terse.Role(value)
		case "model":
			c.Model, c.ModelHash = value, "hash of "+value
		case "calib":
			c.Calibration = value
		case "kv": // a format, or bytes of every prompt + of every token / of them second planes
			if fixed, each, ok := strings.Cut(value, "+"); ok {
				each, second, _ := strings.Cut(each, "/")
				c.KVFixed, c.KVPerToken = float64(number(t, fixed)), float64(number(t, each))
				if second != "" {
					c.KVSecond = float64(number(t, second))
				}
			} else {
				c.Format = value
			}
		case "link": // from:bytes/s
			from, rate, _ := strings.Cut(value, ":")
			c.Links = map[string]float64{from: float64(number(t, rate))}
		case "planes":
			c.Progressive = route.Progressive(value)
		case "ctx":
			c.MaxContext = number(t, value)
		case "running":
			c.Running = number(t, value)
		case "waiting":
			c.Waiting = number(t, value)
		case "tokens":
			c.WaitingTokens = number(t, value)
		case "rate":
			c.PrefillRate = float64(number(t, value))
		case "cached":
			c.CachedPrefix = number(t, value)
		default:
			t.Fatalf("unknown member key %q", key)
		}
	}
	return c
}

func parseAsk(t *testing.T, words []string) route.Ask {
	t.Helper()
	ask := route.Ask{MaxTokens: 100}
	for key, value := range pairs(t, words) {
		switch key {
		case "prompt":
			ask.PromptTokens = number(t, value)
		case "max":
			ask.MaxTokens = number(t, value)
		case "out":
			ask.Output = number(t, value)
		case "score":
			ask.ScorePrompt = value == "yes"
		case "resumed":
			ask.Resumed = value == "yes"
		case "below":
			ask.LocalBelow = number(t, value)
		case "ttft":
			ask.TTFT = time.Duration(number(t, value)) * time.Millisecond
		case "exclude":
			ask.Exclude = strings.Split(value, ",")
		default:
			t.Fatalf("unknown ask key %q", key)
		}
	}
	return ask
}

func pairs(t *testing.T, words []string) map[string]string {
	t.Helper()
	m := map[string]string{}
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			t.Fatalf("want key=value, got %q", w)
		}
		m[key] = value
	}
	return m
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	require.NoError(t, err)
	return n
}
