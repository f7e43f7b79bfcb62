package cuda

// readParams is the reading kernel's parameter (src/kernels.cu).
type readParams struct {
	Data, Out Ptr
	N         uint64 // of 16 bytes
}

// ReadRate is how many bytes of n from p on this GPU reads in a second, the best
// of a few tries: the floor under everything that is bound by memory.
func (c *Context) ReadRate(m Module, p Ptr, n int) (rate float64, err error) {
	f, err := c.Function(m, "read_all", 0)
	if err != nil {
		return 0, err
	}
	var at [2]Event
	for i := range at {
		if at[i], err = c.NewEvent(true); err != nil {
			return 0, err
		}
		defer c.CloseEvent(at[i])
	}
	params := readParams{p, p, uint64(n / 16)}
	for range 5 {
		if err := c.Record(at[0], 0); err != nil {
			return 0, err
		}
		if err := c.Launch(f, Shape{Grid: [3]int{2 * c.info.SMs, 1, 1}, Block: 512}, 0, paramBytes(&params)); err != nil {
			return 0, err
		}
		if err := c.Record(at[1], 0); err != nil {
			return 0, err
		}
		us, err := c.Elapsed(at[0], at[1])
		if err != nil {
			return 0, err
		}
		rate = max(rate, float64(n)/us*1e6)
	}
	return rate, nil
}
