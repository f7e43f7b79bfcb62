package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// dialer dials from inside a network namespace, so that a test is a client
// there without being a process there.
func dialer(ns string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	if ns == "" {
		return d.DialContext
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		runtime.LockOSThread()
		back, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return nil, err
		}
		defer back.Close()
		if err := enter("/run/netns/" + ns); err != nil {
			return nil, err
		}
		conn, dialErr := d.DialContext(ctx, network, addr)
		if err := unix.Setns(int(back.Fd()), unix.CLONE_NEWNET); err != nil {
			return nil, err // still locked: the thread ends with its goroutine
		}
		runtime.UnlockOSThread()
		return conn, dialErr
	}
}

// enter moves the calling thread into a network namespace.
func enter(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("cannot enter network namespace %s: %w", path, err)
	}
	return nil
}
