package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/gateway"
	"github.com/terse-llm/terse/tokenizer/chat"
)

// runFlags are the sampling of terse run.
type runFlags struct {
	temperature, topP, minP, repetition float32
	topK, maxTokens                     int
	seed                                uint64
	system                              string
}

func (f *runFlags) register(c *cobra.Command) {
	c.Flags().Float32Var(&f.temperature, "temperature", 0.8, "0 picks the most likely token")
	c.Flags().Float32Var(&f.topP, "top-p", 0.95, "sample from the most likely tokens that sum to this probability")
	c.Flags().Float32Var(&f.minP, "min-p", 0, "drop tokens less likely than this share of the likeliest")
	c.Flags().IntVar(&f.topK, "top-k", 0, "sample from this many most likely tokens (0: all)")
	c.Flags().Float32Var(&f.repetition, "repetition-penalty", 1, "above 1 makes repeated tokens less likely")
	c.Flags().IntVar(&f.maxTokens, "max-tokens", 512, "tokens to answer at most")
	c.Flags().Uint64Var(&f.seed, "seed", 0, "random seed (default: another one each time)")
	c.Flags().StringVar(&f.system, "system", "", "system message")
}

// check refuses values that mean nothing, as the API does.
func (f *runFlags) check(c *cobra.Command) error {
	for _, v := range []struct {
		name  string
		value any
		ok    bool
		want  string
	}{
		{"temperature", f.temperature, f.temperature >= 0 && f.temperature <= 2, "0 to 2"},
		{"top-p", f.topP, f.topP > 0 && f.topP <= 1, "above 0 and at most 1"},
		{"min-p", f.minP, f.minP >= 0 && f.minP <= 1, "0 to 1"},
		{"top-k", f.topK, f.topK >= 0, "0 or more"},
		{"repetition-penalty", f.repetition, f.repetition > 0, "above 0"},
		{"max-tokens", f.maxTokens, f.maxTokens > 0, "positive"},
	} {
		if !v.ok {
			return usageError{c.CommandPath(), fmt.Errorf("--%s is %v: it must be %s", v.name, v.value, v.want)}
		}
	}
	return nil
}

func (f *runFlags) params(c *cobra.Command) gateway.ChatParams {
	seed := f.seed
	if !c.Flags().Changed("seed") {
		seed = uint64(time.Now().UnixNano())
	}
	return gateway.ChatParams{MaxTokens: f.maxTokens, Sampling: terse.Sampling{
		Temperature: f.temperature, TopP: f.topP, MinP: f.minP, TopK: f.topK, RepetitionPenalty: f.repetition, Seed: seed,
	}}
}

// newRun is terse run: a chat or one answer in the terminal.
func newRun() *cobra.Command {
	var n nodeFlags
	var r runFlags
	var nats natsFlags
	var logs logFlags
	c := &cobra.Command{
		Use:   "run [PROMPT]",
		Short: "Chat in the terminal, or answer one prompt",
		Long: `Answers PROMPT, or what comes on standard input when that is no terminal, and
prints one line of timing to standard error. Without either it chats: Ctrl-C stops
an answer, Ctrl-D or /bye leaves, /clear forgets the conversation.`,
		Example: `  terse run "Tell me a story about Lily."
  terse run --kv hq2 --temperature 0 < long-prompt.txt
  terse run --kv f16 --temperature 0 < long-prompt.txt`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if err := errors.Join(n.engine.check(c), r.check(c)); err != nil {
				return err
			}
			log, err := logs.logger(c.ErrOrStderr())
			if err != nil {
				return usageError{c.CommandPath(), err}
			}
			// Ctrl-C is for answers (terminal.answer); SIGTERM ends the program.
			ctx, stop := signal.NotifyContext(context.WithoutCancel(c.Context()), syscall.SIGTERM)
			defer stop()
			s, err := n.start(ctx, nats, &apiFlags{}, log)
			if err != nil {
				return err
			}
			defer s.close()
			g, err := s.node.files.newServer(s.dispatcher, s.node.cfg.MaxContext, n.model.template, &apiFlags{}, log)
			if err != nil {
				return err
			}
			t := &terminal{server: g, in: c.InOrStdin(), out: c.OutOrStdout(), err: c.ErrOrStderr(), params: r.params(c), system: r.system}
			return together(ctx, s.run, func(ctx context.Context) error {
				if err := s.ready(ctx); err != nil {
					return err
				}
				if err := c.Context().Err(); err != nil { // Ctrl-C while the model was loading
					return err
				}
				return t.run(ctx, strings.Join(args, " "))
			})
		},
	}
	n.register(c)
	n.model.registerText(c)
	r.register(c)
	logs.register(c)
	c.Flags().Lookup("log-level").DefValue = "warn"
	logs.level = "warn"
	return c
}

// terminal is the user's side of terse run.
type terminal struct {
	server   *gateway.Server
	in       io.Reader
	out, err io.Writer
	params   gateway.ChatParams
	system   string
	history  []chat.Message

	interrupts chan os.Signal // Ctrl-C since the terminal is there
}

// maxStdin bounds a prompt from standard input; no model's context is larger.
const maxStdin = 16 << 20

func (t *terminal) run(ctx context.Context, prompt string) error {
	t.interrupts = make(chan os.Signal, 1)
	signal.Notify(t.interrupts, os.Interrupt)
	defer signal.Stop(t.interrupts)
	t.clear()
	f, isFile := t.in.(*os.File)
	interactive := prompt == "" && isFile && term.IsTerminal(int(f.Fd()))
	if interactive {
		return t.chat(ctx)
	}
	if prompt == "" {
		b, err := io.ReadAll(io.LimitReader(t.in, maxStdin+1))
		if err != nil {
			return fmt.Errorf("cannot read the prompt: %w", err)
		}
		if len(b) > maxStdin {
			return fmt.Errorf("the prompt on standard input is over %s", formatBytes(maxStdin))
		}
		prompt = strings.TrimRight(string(b), "\n")
	}
	if strings.TrimSpace(prompt) == "" {
		return errors.New("the prompt is empty: give one as an argument or on standard input")
	}
	return t.answer(ctx, prompt)
}

func (t *terminal) clear() {
	t.history = nil
	if t.system != "" {
		t.history = []chat.Message{{Role: "system", Content: t.system}}
	}
}

// chat reads turns until the end of input.
func (t *terminal) chat(ctx context.Context) error {
	fmt.Fprintln(t.err, "Ctrl-C stops an answer, Ctrl-D leaves, /clear starts anew.")
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(t.in); ; {
			if !s.Scan() {
				return
			}
			select {
			case lines <- s.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		fmt.Fprint(t.err, ">>> ")
		var line string
		var open bool
		select {
		case line, open = <-lines:
		case <-t.interrupts: // there is no answer to stop, and the terminal has dropped the line
			fmt.Fprintln(t.err, "\nCtrl-D leaves.")
			continue
		case <-ctx.Done():
			fmt.Fprintln(t.err)
			return nil
		}
		switch line = strings.TrimSpace(line); {
		case !open, line == "/bye":
			fmt.Fprintln(t.err)
			return nil
		case line == "":
			continue
		case line == "/clear":
			t.clear()
			continue
		}
		if err := t.answer(ctx, line); err != nil && !errors.Is(err, context.Canceled) {
			fmt.Fprintf(t.err, "terse: %v\n", err)
		}
	}
}

// answer generates one answer; an interrupt during it stops only the answer,
// which then ends with context.Canceled.
func (t *terminal) answer(ctx context.Context, prompt string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-t.interrupts:
			stop()
		case <-ctx.Done():
		}
	}()
	messages := append(t.history, chat.Message{Role: "user", Content: prompt})
	res, err := t.server.Chat(ctx, messages, t.params, func(s string) { io.WriteString(t.out, s) })
	fmt.Fprintln(t.out)
	if err != nil && ctx.Err() == nil {
		return err
	}
	t.history = append(messages, chat.Message{Role: "assistant", Content: res.Text})
	fmt.Fprintln(t.err, summary(res))
	return ctx.Err()
}

// summary is the line that tells what an answer cost.
func summary(r gateway.ChatResult) string {
	t := r.Timing
	rate := 0.0
	if n := r.Usage.CompletionTokens - 1; n > 0 && t.Decode > 0 {
		rate = float64(n) / t.Decode.Seconds()
	}
	s := fmt.Sprintf("[%d prompt tokens", r.Usage.PromptTokens)
	if r.Usage.CachedTokens > 0 {
		s += fmt.Sprintf(" (%d cached)", r.Usage.CachedTokens)
	}
	s += fmt.Sprintf(" · TTFT %s · %d tokens at %.1f/s · KV %s", t.TTFT.Round(time.Millisecond), r.Usage.CompletionTokens, rate, t.KVFormat)
	if t.KVBytes > 0 {
		s += fmt.Sprintf(": %s moved, f16 would be %s (%.0f %%)", formatBytes(t.KVBytes), formatBytes(t.KVBytesF16), 100*float64(t.KVBytes)/float64(t.KVBytesF16))
	} else {
		s += ": nothing moved, the prompt was computed where it was answered"
	}
	return s + "]"
}
