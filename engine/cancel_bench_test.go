package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/internal/synthetic"
	"github.com/terse-llm/terse/kernels/cpu"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/weights"
)

// BenchmarkCancel is how long a model of Llama-3.2-1B's shape holds the pages of a
// prompt of 4,096 tokens from its caller's leaving on, at any moment of its prefill:
// alone, and beside a sequence that decodes. A step of 512 tokens takes seconds.
//
//	go test ./engine -run '^$' -bench Cancel -benchtime 40x
func BenchmarkCancel(b *testing.B) {
	path := filepath.Join(b.TempDir(), "model.gguf")
	shape, err := synthetic.ShapeOf("llama-3.2-1b")
	if err == nil {
		err = synthetic.WriteFile(path, shape, tensor.Q8_0, 1)
	}
	if err != nil {
		b.Fatal(err)
	}
	src, err := weights.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	ops := cpu.Best(2)
	defer ops.Close()
	c, err := model.ConfigOf(src)
	if err != nil {
		b.Fatal(err)
	}
	m, err := model.Bind(c, src, ops)
	if err != nil {
		b.Fatal(err)
	}
	for _, beside := range []int{0, 1} {
		b.Run(fmt.Sprintf("beside-%d", beside), func(b *testing.B) { benchmarkCancel(b, m, beside) })
	}
}

func benchmarkCancel(b *testing.B, m *model.Model, beside int) {
	f, err := quant.ParseFormat("hq3", false)
	if err != nil {
		b.Fatal(err)
	}
	g, err := m.Config.Geometry(f)
	if err != nil {
		b.Fatal(err)
	}
	run, err := model.NewRunner(m, g, nil)
	if err != nil {
		b.Fatal(err)
	}
	e, err := New(Config{Runner: run, KVMemory: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	r := (&rig{Engine: e, model: m}).start(b)
	text := func(n int) []terse.Token {
		p := make([]terse.Token, n)
		for i := range p {
			p[i] = terse.Token(rand.IntN(m.Config.VocabSize))
		}
		return p
	}
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	for range beside {
		began := make(chan struct{}, 1<<20)
		go r.Generate(ctx, request("beside", text(100), 1<<16), func(terse.Output) error { began <- struct{}{}; return nil })
		<-began
	}
	held := func() int64 { return r.Load().KVUsed }
	idle := held()
	var times []float64
	for i := 0; b.Loop(); i++ {
		ctx, leave := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() {
			done <- r.Generate(ctx, request(fmt.Sprint(i), text(4096), 1), func(terse.Output) error { return nil })
		}()
		for r.Load().Running <= beside {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(rand.Int64N(int64(2 * time.Second))))
		start := time.Now()
		leave()
		for r.Load().Running > beside || held() > idle+idle/2 {
			time.Sleep(50 * time.Microsecond)
		}
		times = append(times, float64(time.Since(start).Microseconds())/1000)
		if err := <-done; terse.CodeOf(err) != terse.CodeCancelled {
			b.Fatal(err)
		}
	}
	slices.Sort(times)
	b.ReportMetric(times[len(times)/2], "ms/median")
	b.ReportMetric(times[len(times)-1], "ms/worst")
}
