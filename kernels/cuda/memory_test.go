package cuda

import (
	"bytes"
	"testing"
)

// Bytes go to the device and come back by every way there is.
func TestMemory(t *testing.T) {
	err := device(t).Do(func(c *Context) error {
		free, total, err := c.FreeMemory()
		ok(t, err)
		if free <= 0 || free > total {
			t.Errorf("%d of %d bytes are free", free, total)
		}
		ok(t, c.KeepPool(1<<20))
		s, err := c.NewStream()
		ok(t, err)
		other, err := c.NewStream()
		ok(t, err)
		ready, err := c.NewEvent(false)
		ok(t, err)

		want := make([]byte, 5000)
		for i := range want {
			want[i] = byte(i * 7)
		}
		from, err := c.HostAlloc(len(want))
		ok(t, err)
		to, err := c.HostAlloc(len(want))
		ok(t, err)
		copy(from, want)
		a, err := c.AllocAsync(len(want), s)
		ok(t, err)
		b, err := c.Alloc(len(want))
		ok(t, err)
		ok(t, c.UploadAsync(a, from, s))
		ok(t, c.FillAsync(b, 0xee, len(want), s))
		ok(t, c.CopyAsync(b, a, len(want)-100, s))
		ok(t, c.Record(ready, s))
		ok(t, c.Wait(other, ready))
		ok(t, c.DownloadAsync(to, b, other))
		ok(t, c.Synchronize(other))
		for i := len(want) - 100; i < len(want); i++ {
			want[i] = 0xee
		}
		if !bytes.Equal(to, want) {
			t.Error("what came back is not what was sent")
		}
		ok(t, c.FreeAsync(a, s))
		ok(t, c.Free(b))
		ok(t, c.FreeHost(from))
		ok(t, c.FreeHost(to))
		ok(t, c.CloseEvent(ready))
		ok(t, c.CloseStream(other))
		return c.CloseStream(s)
	})
	if err != nil {
		t.Fatal(err)
	}
}
