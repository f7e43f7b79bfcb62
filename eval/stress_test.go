package eval

import (
	"math"
	"testing"

	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/model/session"
)

// A model under stress computes what it did: the same digits but for the order
// of sums with outliers, nearly the same with a bias; codes that are
// neither rotated nor freed of the mean pay for it.
func TestStress(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the built-in model")
	}
	windows := sampleWindows(t, defaultTokenizer(t), "children", 512, 1)
	run := func(stress, format string) []float32 {
		s := stressedSubject(t, stress)
		s.Calibration = nil
		r, err := s.session(format, 0, 512)
		if err != nil {
			t.Fatal(err)
		}
		logits, err := r.Forward(windows[0], session.AllLogits)
		if err != nil {
			t.Fatal(err)
		}
		return append([]float32(nil), logits...)
	}
	plain := run("", "f32")
	vocab := len(plain) / 512
	kl := func(a, b []float32) float64 {
		sum := 0.0
		for p := range 511 {
			sum += compare(a[p*vocab:(p+1)*vocab], b[p*vocab:(p+1)*vocab], windows[0][p+1]).kl / 511
		}
		return sum
	}
	f := func(stress string, most float64) {
		t.Helper()
		exact := run(stress, "f32")
		change := kl(plain, exact)
		t.Logf("%s changes the exact model by %.2g nats", stress, change)
		if !(change <= most) || math.IsNaN(change) {
			t.Errorf("%s changes the exact model by %g nats, want at most %g", stress, change, most)
		}
		rotated, bare := kl(exact, run(stress, "hq4")), kl(exact, run(stress, "hq4,rotate=off"))
		t.Logf("%s: hq4 loses %.4f, unrotated %.4f", stress, rotated, bare)
		if bare < 2*rotated {
			t.Errorf("%s costs hq4 without rotation %g nats, with it %g", stress, bare, rotated)
		}
	}
	f("outliers", 1e-6)
	f("bias", 0.1)
}

func TestStressRefuses(t *testing.T) {
	if err := Stress(&model.Weights{}, "other"); err == nil {
		t.Error("a stress that does not exist is let through")
	}
	if err := Stress(&model.Weights{Config: model.Config{QKNorm: true}}, "bias"); err == nil {
		t.Error("a model that normalises K is let through")
	}
}
