package cuda

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
)

// Info is what a device is.
type Info struct {
	Ordinal      int
	Name         string
	Major, Minor int // compute capability
	SMs          int
	SharedBlock  int   // bytes of shared memory that one block may ask for
	L2           int   // bytes
	Memory       int64 // bytes in all
}

// The attributes that Info reads (CUdevice_attribute).
const (
	attrSMs         = 16
	attrL2          = 38
	attrMajor       = 75
	attrMinor       = 76
	attrSharedOptin = 97
)

// minMajor is the oldest compute capability that the PTX is for.
const minMajor = 8

// Device is an open GPU. CUDA's current context belongs to a thread, so one
// goroutine, locked to its thread, makes all calls: Do hands it work.
type Device struct {
	Info Info

	driver *Driver
	work   chan func(*Context)
	done   chan struct{}
}

// Context is a device's context, valid inside Do only.
type Context struct {
	*Driver
	info   Info
	handle uintptr
	device uintptr
	launch *launchArgs
	jit    *jitLog
	blas   *blasLt // nil until used
	failed error   // of the copy under way
}

// Open opens GPU n.
func (d *Driver) Open(n int) (*Device, error) {
	count, err := d.Count()
	if err != nil {
		return nil, err
	}
	if n < 0 || n >= count {
		return nil, fmt.Errorf("cannot open GPU %d: there are %d: %w; choose one below that, or use --device cpu", n, count, ErrNoDriver)
	}
	dev := &Device{driver: d, work: make(chan func(*Context)), done: make(chan struct{})}
	opened := make(chan error)
	go dev.own(n, opened)
	if err := <-opened; err != nil {
		return nil, fmt.Errorf("cannot open GPU %d: %w", n, err)
	}
	return dev, nil
}

// own is the owner goroutine. The thread ends with it: it is never unlocked, so
// that no other goroutine inherits a thread with a current context.
func (dev *Device) own(n int, opened chan<- error) {
	runtime.LockOSThread()
	defer close(dev.done)
	private := *dev.driver // its own result cells
	private.out, private.names = new(cells), new(cells)
	c := &Context{Driver: &private, launch: new(launchArgs), jit: new(jitLog)}
	if err := c.open(n); err != nil {
		opened <- err
		return
	}
	dev.Info = c.info
	opened <- nil
	for f := range dev.work {
		f(c)
	}
}

// Do runs f on the owner's thread and waits.
func (dev *Device) Do(f func(*Context) error) error {
	err := errors.New("the GPU's goroutine has ended")
	finished := make(chan struct{})
	task := func(c *Context) {
		defer close(finished)
		err = f(c)
	}
	select {
	case dev.work <- task:
		<-finished
	case <-dev.done:
	}
	return err
}

// Close gives the device back. Memory and modules go with its context; nothing
// may be running.
func (dev *Device) Close() error {
	err := dev.Do(func(c *Context) error { return c.close() })
	close(dev.work)
	<-dev.done
	return err
}

func (c *Context) open(n int) error {
	if err := c.check(cuDeviceGet, c.out.at(0), uintptr(n)); err != nil {
		return err
	}
	c.device = uintptr(uint32(c.out.n[0]))
	if err := c.describe(n); err != nil {
		return err
	}
	if c.info.Major < minMajor {
		return fmt.Errorf("%s has compute capability %d.%d, terse's kernels need %d.0 (Ampere) or later; use --device cpu", c.info.Name, c.info.Major, c.info.Minor, minMajor)
	}
	if err := c.check(cuDevicePrimaryCtxRetain, c.out.at(0), c.device); err != nil {
		return err
	}
	c.handle = uintptr(c.out.n[0])
	if err := c.check(cuCtxSetCurrent, c.handle); err != nil {
		return errors.Join(err, c.check(cuDevicePrimaryCtxRelease, c.device))
	}
	return nil
}

func (c *Context) close() error {
	var errs []error
	if c.blas != nil {
		errs = append(errs, c.blas.close())
	}
	errs = append(errs, c.check(cuCtxSetCurrent, 0), c.check(cuDevicePrimaryCtxRelease, c.device))
	return errors.Join(errs...)
}

func (c *Context) describe(n int) error {
	c.info.Ordinal = n
	if err := c.check(cuDeviceGetName, textAt(c.out), uintptr(len(c.out.text)), c.device); err != nil {
		return err
	}
	name, _, _ := bytes.Cut(c.out.text[:], []byte{0})
	c.info.Name = string(name)
	for _, a := range []struct {
		id  uintptr
		dst *int
	}{
		{attrSMs, &c.info.SMs}, {attrL2, &c.info.L2}, {attrMajor, &c.info.Major}, {attrMinor, &c.info.Minor},
		{attrSharedOptin, &c.info.SharedBlock},
	} {
		c.out.n[0] = 0
		if err := c.check(cuDeviceGetAttribute, c.out.at(0), a.id, c.device); err != nil {
			return err
		}
		*a.dst = int(int32(c.out.n[0]))
	}
	if err := c.check(cuDeviceTotalMem, c.out.at(0), c.device); err != nil {
		return err
	}
	c.info.Memory = int64(c.out.n[0])
	return nil
}
