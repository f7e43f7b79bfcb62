package cuda

// entry names one function of NVIDIA's driver or of cuBLASLt.
type entry int

// The functions in use, all there since driver 520 (CUDA 11.8).
const (
	cuInit entry = iota
	cuDriverGetVersion
	cuGetErrorName
	cuGetErrorString
	cuDeviceGetCount
	cuDeviceGet
	cuDeviceGetName
	cuDeviceGetAttribute
	cuDeviceTotalMem
	cuDevicePrimaryCtxRetain
	cuDevicePrimaryCtxRelease
	cuCtxSetCurrent
	cuMemGetInfo
	cuMemAlloc
	cuMemFree
	cuMemAllocAsync
	cuMemFreeAsync
	cuDeviceGetDefaultMemPool
	cuMemPoolSetAttribute
	cuMemHostAlloc
	cuMemFreeHost
	cuMemcpyHtoDAsync
	cuMemcpyDtoHAsync
	cuMemcpyDtoDAsync
	cuMemsetD8Async
	cuStreamCreate
	cuStreamDestroy
	cuStreamSynchronize
	cuStreamWaitEvent
	cuStreamBeginCapture
	cuStreamEndCapture
	cuGraphInstantiate
	cuGraphLaunch
	cuGraphExecDestroy
	cuGraphDestroy
	cuEventCreate
	cuEventRecord
	cuEventSynchronize
	cuEventElapsedTime
	cuEventDestroy
	cuModuleLoadData
	cuModuleUnload
	cuModuleGetFunction
	cuFuncSetAttribute
	cuLaunchKernel
	cuLaunchKernelEx
	numDriver

	ltCreate entry = iota - 1
	ltDestroy
	ltGetVersion
	ltDescCreate
	ltDescDestroy
	ltDescSet
	ltLayoutCreate
	ltLayoutDestroy
	ltPreferenceCreate
	ltPreferenceDestroy
	ltPreferenceSet
	ltHeuristic
	ltMatmul
	numEntries
)

// symbols are the entries' names in the libraries. Where a name has a version
// suffix, the plain one is an older signature.
var symbols = [numEntries]string{
	cuInit:                    "cuInit",
	cuDriverGetVersion:        "cuDriverGetVersion",
	cuGetErrorName:            "cuGetErrorName",
	cuGetErrorString:          "cuGetErrorString",
	cuDeviceGetCount:          "cuDeviceGetCount",
	cuDeviceGet:               "cuDeviceGet",
	cuDeviceGetName:           "cuDeviceGetName",
	cuDeviceGetAttribute:      "cuDeviceGetAttribute",
	cuDeviceTotalMem:          "cuDeviceTotalMem_v2",
	cuDevicePrimaryCtxRetain:  "cuDevicePrimaryCtxRetain",
	cuDevicePrimaryCtxRelease: "cuDevicePrimaryCtxRelease_v2",
	cuCtxSetCurrent:           "cuCtxSetCurrent",
	cuMemGetInfo:              "cuMemGetInfo_v2",
	cuMemAlloc:                "cuMemAlloc_v2",
	cuMemFree:                 "cuMemFree_v2",
	cuMemAllocAsync:           "cuMemAllocAsync",
	cuMemFreeAsync:            "cuMemFreeAsync",
	cuDeviceGetDefaultMemPool: "cuDeviceGetDefaultMemPool",
	cuMemPoolSetAttribute:     "cuMemPoolSetAttribute",
	cuMemHostAlloc:            "cuMemHostAlloc",
	cuMemFreeHost:             "cuMemFreeHost",
	cuMemcpyHtoDAsync:         "cuMemcpyHtoDAsync_v2",
	cuMemcpyDtoHAsync:         "cuMemcpyDtoHAsync_v2",
	cuMemcpyDtoDAsync:         "cuMemcpyDtoDAsync_v2",
	cuMemsetD8Async:           "cuMemsetD8Async",
	cuStreamCreate:            "cuStreamCreate",
	cuStreamDestroy:           "cuStreamDestroy_v2",
	cuStreamSynchronize:       "cuStreamSynchronize",
	cuStreamWaitEvent:         "cuStreamWaitEvent",
	cuStreamBeginCapture:      "cuStreamBeginCapture_v2",
	cuStreamEndCapture:        "cuStreamEndCapture",
	cuGraphInstantiate:        "cuGraphInstantiateWithFlags",
	cuGraphLaunch:             "cuGraphLaunch",
	cuGraphExecDestroy:        "cuGraphExecDestroy",
	cuGraphDestroy:            "cuGraphDestroy",
	cuEventCreate:             "cuEventCreate",
	cuEventRecord:             "cuEventRecord",
	cuEventSynchronize:        "cuEventSynchronize",
	cuEventElapsedTime:        "cuEventElapsedTime",
	cuEventDestroy:            "cuEventDestroy_v2",
	cuModuleLoadData:          "cuModuleLoadDataEx",
	cuModuleUnload:            "cuModuleUnload",
	cuModuleGetFunction:       "cuModuleGetFunction",
	cuFuncSetAttribute:        "cuFuncSetAttribute",
	cuLaunchKernel:            "cuLaunchKernel",
	cuLaunchKernelEx:          "cuLaunchKernelEx",

	ltCreate:            "cublasLtCreate",
	ltDestroy:           "cublasLtDestroy",
	ltGetVersion:        "cublasLtGetVersion",
	ltDescCreate:        "cublasLtMatmulDescCreate",
	ltDescDestroy:       "cublasLtMatmulDescDestroy",
	ltDescSet:           "cublasLtMatmulDescSetAttribute",
	ltLayoutCreate:      "cublasLtMatrixLayoutCreate",
	ltLayoutDestroy:     "cublasLtMatrixLayoutDestroy",
	ltPreferenceCreate:  "cublasLtMatmulPreferenceCreate",
	ltPreferenceDestroy: "cublasLtMatmulPreferenceDestroy",
	ltPreferenceSet:     "cublasLtMatmulPreferenceSetAttribute",
	ltHeuristic:         "cublasLtMatmulAlgoGetHeuristic",
	ltMatmul:            "cublasLtMatmul",
}

// caller reaches the entries of one library: the real one, or a test's.
type caller interface {
	// call calls e and gives its return code. Pointers among the arguments must
	// point to memory that does not move: C's, or fields of heap objects.
	call(e entry, args ...uintptr) uintptr
}
