// Package huge allocates large byte slices in huge pages where the system gives
// them. Streaming from 4 KiB pages costs a decode step up to half the memory's
// bandwidth (measured on Zen 4: 18 against 33 GB/s for one core), so weights and
// cache pages belong here.
package huge
