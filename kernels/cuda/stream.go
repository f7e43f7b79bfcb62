package cuda

import (
	"fmt"
	"math"
	"unsafe"
)

// Stream is a queue of work on a device; 0 is the default stream.
type Stream uintptr

// Event is a point in a stream.
type Event uintptr

// Graph is captured work, ready to be launched again and again.
type Graph uintptr

// NewStream makes a stream that does not wait for the default one.
func (c *Context) NewStream() (Stream, error) {
	const nonBlocking = 1
	if err := c.check(cuStreamCreate, c.out.at(0), nonBlocking); err != nil {
		return 0, fmt.Errorf("cannot make a GPU stream: %w", err)
	}
	return Stream(c.out.n[0]), nil
}

// CloseStream ends a stream.
func (c *Context) CloseStream(s Stream) error { return c.check(cuStreamDestroy, uintptr(s)) }

// Synchronize waits until all work of a stream is done. What went wrong in a
// kernel is reported here.
func (c *Context) Synchronize(s Stream) error { return c.check(cuStreamSynchronize, uintptr(s)) }

// Wait makes later work of s wait for e.
func (c *Context) Wait(s Stream, e Event) error {
	return c.check(cuStreamWaitEvent, uintptr(s), uintptr(e), 0)
}

// NewEvent makes an event; only timed ones can be measured.
func (c *Context) NewEvent(timed bool) (Event, error) {
	var flags uintptr
	if !timed {
		flags = 2 // CU_EVENT_DISABLE_TIMING
	}
	if err := c.check(cuEventCreate, c.out.at(0), flags); err != nil {
		return 0, fmt.Errorf("cannot make a GPU event: %w", err)
	}
	return Event(c.out.n[0]), nil
}

// CloseEvent ends an event.
func (c *Context) CloseEvent(e Event) error { return c.check(cuEventDestroy, uintptr(e)) }

// Record puts e into the stream.
func (c *Context) Record(e Event, s Stream) error {
	return c.check(cuEventRecord, uintptr(e), uintptr(s))
}

// Await waits until the stream has got to e.
func (c *Context) Await(e Event) error { return c.check(cuEventSynchronize, uintptr(e)) }

// Elapsed is the time in microseconds between two recorded events; it waits for
// the second.
func (c *Context) Elapsed(from, to Event) (float64, error) {
	if err := c.check(cuEventSynchronize, uintptr(to)); err != nil {
		return 0, err
	}
	if err := c.check(cuEventElapsedTime, c.out.at(0), uintptr(from), uintptr(to)); err != nil {
		return 0, err
	}
	return 1000 * float64(math.Float32frombits(uint32(c.out.n[0]))), nil
}

// Capture records what f puts into the stream as a graph instead of running it.
func (c *Context) Capture(s Stream, f func() error) (Graph, error) {
	const threadLocal = 1
	if err := c.check(cuStreamBeginCapture, uintptr(s), threadLocal); err != nil {
		return 0, fmt.Errorf("cannot begin a CUDA graph: %w", err)
	}
	failed := f()
	err := c.check(cuStreamEndCapture, uintptr(s), c.out.at(0))
	graph := uintptr(c.out.n[0])
	if failed != nil {
		return 0, failed
	}
	if err != nil {
		return 0, fmt.Errorf("cannot end a CUDA graph: %w", err)
	}
	err = c.check(cuGraphInstantiate, c.out.at(0), graph, 0)
	exec := Graph(c.out.n[0])
	if destroyed := c.check(cuGraphDestroy, graph); err == nil {
		err = destroyed
	}
	if err != nil {
		return 0, fmt.Errorf("cannot make a CUDA graph ready: %w", err)
	}
	return exec, nil
}

// Replay runs a graph in a stream.
func (c *Context) Replay(g Graph, s Stream) error {
	return c.check(cuGraphLaunch, uintptr(g), uintptr(s))
}

// CloseGraph ends a graph.
func (c *Context) CloseGraph(g Graph) error { return c.check(cuGraphExecDestroy, uintptr(g)) }

// Module is loaded device code.
type Module uintptr

// Function is a kernel of a module.
type Function uintptr

// maxParams is the size of the largest kernel parameter.
const maxParams = 512

// launchArgs is what a launch points to: our kernels take one struct by value.
type launchArgs struct {
	params [maxParams / 8]uint64
	list   [1]uintptr
	config launchConfig
	early  launchAttribute
}

// launchConfig is CUlaunchConfig, launchAttribute CUlaunchAttribute.
type launchConfig struct {
	grid, block [3]uint32
	shared      uint32
	stream      uintptr
	attributes  uintptr
	n           uint32
}

type launchAttribute struct {
	id    uint32
	_     uint32
	value uint32
	_     [60]byte
}

// LoadModule loads PTX or a cubin. What the compiler says of a PTX that it
// refuses is part of the error.
func (c *Context) LoadModule(image []byte) (Module, error) {
	const logBuffer, logSize = 5, 6 // CU_JIT_ERROR_LOG_BUFFER and its size
	log, text := c.jit, append(append([]byte(nil), image...), 0)
	*log = jitLog{}
	log.keys = [2]uint32{logBuffer, logSize}
	log.values = [2]uintptr{uintptr(unsafe.Pointer(&log.text[0])), uintptr(len(log.text))}
	pin(text, func() {
		c.failed = c.check(cuModuleLoadData, c.out.at(0), address(text), uintptr(len(log.keys)),
			uintptr(unsafe.Pointer(&log.keys[0])), uintptr(unsafe.Pointer(&log.values[0])))
	})
	if c.failed != nil {
		said := cString(uintptr(unsafe.Pointer(&log.text[0])))
		return 0, fmt.Errorf("cannot load the GPU kernels: %w %s", c.failed, said)
	}
	return Module(c.out.n[0]), nil
}

// jitLog is what the driver's compiler is told, and its answer.
type jitLog struct {
	keys   [2]uint32
	values [2]uintptr
	text   [4096]byte
}

// CloseModule unloads a module.
func (c *Context) CloseModule(m Module) error { return c.check(cuModuleUnload, uintptr(m)) }

// Function finds a kernel and lets its blocks have shared bytes of dynamic
// shared memory.
func (c *Context) Function(m Module, name string, shared int) (Function, error) {
	const maxDynamicShared, carveout = 8, 9
	c.out.text = [256]byte{}
	if len(name) >= len(c.out.text) {
		panic("BUG: a kernel's name of " + fmt.Sprint(len(name)) + " bytes")
	}
	copy(c.out.text[:], name)
	if err := c.check(cuModuleGetFunction, c.out.at(0), uintptr(m), textAt(c.out)); err != nil {
		return 0, fmt.Errorf("cannot find GPU kernel %s: %w", name, err)
	}
	f := Function(c.out.n[0])
	// A multiprocessor runs two kernels at once only if they split its memory alike
	// between shared and cache; with early launches it must.
	if c.earlyAllowed() {
		if err := c.check(cuFuncSetAttribute, uintptr(f), carveout, 100); err != nil {
			return 0, fmt.Errorf("cannot give GPU kernel %s its shared memory: %w", name, err)
		}
	}
	if shared > 48<<10 {
		if err := c.check(cuFuncSetAttribute, uintptr(f), maxDynamicShared, uintptr(shared)); err != nil {
			return 0, fmt.Errorf("cannot give GPU kernel %s %d bytes of shared memory (the GPU allows %d): %w", name, shared, c.info.SharedBlock, err)
		}
	}
	return f, nil
}

// Shape is a launch's grid and blocks.
type Shape struct {
	Grid   [3]int // blocks
	Block  int    // threads
	Shared int    // bytes of dynamic shared memory
	// Early lets the kernel start beside the end of the one before it in the stream
	// (programmatic dependent launch). It must wait by itself before it touches what
	// other kernels do (src/prim.cuh, waitBefore).
	Early bool
}

// minEarly is the oldest driver that captures early launches into graphs.
const minEarly = 12040

// earlyAllowed reports whether kernels may start early: those of our code for
// Hopper wait by themselves, those of the PTX do not.
func (c *Context) earlyAllowed() bool {
	return c.hopper() && c.version >= minEarly
}

// Launch puts a kernel into a stream. params is the bytes of its one parameter.
func (c *Context) Launch(f Function, shape Shape, s Stream, params []byte) error {
	l := c.launch
	if len(params) > maxParams {
		panic(fmt.Sprintf("BUG: %d bytes of kernel parameters", len(params)))
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&l.params[0])), maxParams), params)
	l.list[0] = uintptr(unsafe.Pointer(&l.params[0]))
	if shape.Early && c.earlyAllowed() {
		return c.launchEarly(f, shape, s)
	}
	return c.check(cuLaunchKernel, uintptr(f), uintptr(shape.Grid[0]), uintptr(shape.Grid[1]), uintptr(shape.Grid[2]),
		uintptr(shape.Block), 1, 1, uintptr(shape.Shared), uintptr(s), uintptr(unsafe.Pointer(&l.list[0])), 0)
}

// launchEarly is a launch of what c.launch holds that need not wait for the kernel
// before it.
func (c *Context) launchEarly(f Function, shape Shape, s Stream) error {
	const programmaticStreamSerialization = 6
	l := c.launch
	l.early = launchAttribute{id: programmaticStreamSerialization, value: 1}
	l.config = launchConfig{
		grid:  [3]uint32{uint32(shape.Grid[0]), uint32(shape.Grid[1]), uint32(shape.Grid[2])},
		block: [3]uint32{uint32(shape.Block), 1, 1}, shared: uint32(shape.Shared), stream: uintptr(s),
		attributes: uintptr(unsafe.Pointer(&l.early)), n: 1,
	}
	return c.check(cuLaunchKernelEx, uintptr(unsafe.Pointer(&l.config)), uintptr(f), uintptr(unsafe.Pointer(&l.list[0])), 0)
}
