package engine

import "time"

// rateMeter is an exponentially weighted rate of prompt tokens per second.
type rateMeter struct {
	tokens, seconds float64
}

// decay is how much of the past one observation leaves: about the last twenty
// prefill steps count.
const decay = 0.95

func (m *rateMeter) add(tokens int, d time.Duration) {
	if tokens == 0 || d <= 0 {
		return
	}
	m.tokens = m.tokens*decay + float64(tokens)
	m.seconds = m.seconds*decay + d.Seconds()
}

func (m *rateMeter) value() float64 {
	if m.seconds == 0 {
		return 0
	}
	return m.tokens / m.seconds
}
