/* A tiny libnvidia-ml.so.1: two GPUs, enough of NVML for the real Python binding to read them.
 *
 * The first is healthy and answers everything; the second has no ECC, no page retirement and no row remapping.
 * The control functions (fake_*) are called by tests through ctypes. Signatures: NVML API reference. */
#include <string.h>

typedef int ret_t;
enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, TIMEOUT = 10, GPU_IS_LOST = 15 };

struct gpu { int index; int lost; unsigned busy; unsigned long long ecc; unsigned long long reasons; };
static struct gpu gpus[2] = {{0, 0, 37, 0, 0}, {1, 0, 5, 0, 0}};

typedef struct { struct gpu *device; unsigned long long type, data; unsigned gi, ci; } event_t;
static event_t queue[64];
static int queued, registered[2], events_in_use;

void fake_xid(int gpu, unsigned xid) {
    if (!registered[gpu] || queued == 64) return;
    queue[queued++] = (event_t){&gpus[gpu], 8, xid, 0xFFFFFFFFu, 0xFFFFFFFFu};
}
void fake_lose(int gpu, int lost) { gpus[gpu].lost = lost; }
void fake_busy(int gpu, unsigned percent) { gpus[gpu].busy = percent; }
void fake_ecc(int gpu, unsigned long long errors) { gpus[gpu].ecc = errors; }
void fake_throttle(int gpu, unsigned long long reasons) { gpus[gpu].reasons = reasons; }
int fake_events_in_use(void) { return events_in_use; }

#define ALIVE(g) if ((g)->lost) return GPU_IS_LOST
#define FIRST_ONLY(g) ALIVE(g); if ((g)->index != 0) return NOT_SUPPORTED

ret_t nvmlInitWithFlags(unsigned flags) { (void)flags; queued = registered[0] = registered[1] = 0; return OK; }
ret_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
ret_t nvmlShutdown(void) { return OK; }
ret_t nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return OK; }
ret_t nvmlDeviceGetHandleByIndex_v2(unsigned index, struct gpu **out) {
    if (index > 1) return INVALID;
    *out = &gpus[index];
    return OK;
}
ret_t nvmlDeviceGetUtilizationRates(struct gpu *g, unsigned out[2]) { ALIVE(g); out[0] = g->busy; out[1] = 12; return OK; }
ret_t nvmlDeviceGetMemoryInfo(struct gpu *g, unsigned long long out[3]) {
    ALIVE(g);
    out[0] = 80ull << 30; out[1] = 60ull << 30; out[2] = 20ull << 30; /* total, free, used */
    return OK;
}
ret_t nvmlDeviceGetPowerUsage(struct gpu *g, unsigned *mw) { ALIVE(g); *mw = 312500; return OK; }
ret_t nvmlDeviceGetTemperature(struct gpu *g, int sensor, unsigned *c) { ALIVE(g); *c = sensor == 0 ? 61 : 0; return OK; }
ret_t nvmlDeviceGetClockInfo(struct gpu *g, int clock, unsigned *mhz) { ALIVE(g); *mhz = clock == 1 ? 1755 : 0; return OK; }
/* an older driver: the newer name, nvmlDeviceGetCurrentClocksEventReasons, is missing on purpose */
ret_t nvmlDeviceGetCurrentClocksThrottleReasons(struct gpu *g, unsigned long long *r) { ALIVE(g); *r = g->reasons; return OK; }
ret_t nvmlDeviceGetTotalEccErrors(struct gpu *g, int type, int counter, unsigned long long *n) {
    FIRST_ONLY(g);
    *n = type == 1 && counter == 0 ? g->ecc : 0;
    return OK;
}
ret_t nvmlDeviceGetRemappedRows(struct gpu *g, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    FIRST_ONLY(g);
    *corrected = 1; *uncorrected = 2; *pending = 1; *failed = 0;
    return OK;
}
ret_t nvmlDeviceGetPcieReplayCounter(struct gpu *g, unsigned *n) { ALIVE(g); *n = 7; return OK; }

ret_t nvmlEventSetCreate(void **set) { static int the_set; *set = &the_set; events_in_use++; return OK; }
ret_t nvmlEventSetFree(void *set) { (void)set; events_in_use--; return OK; }
ret_t nvmlDeviceRegisterEvents(struct gpu *g, unsigned long long types, void *set) {
    (void)set;
    ALIVE(g);
    registered[g->index] = (types & 8) != 0;
    return OK;
}
ret_t nvmlEventSetWait_v2(void *set, event_t *out, unsigned timeout_ms) {
    (void)set; (void)timeout_ms;
    if (!queued) return TIMEOUT;
    *out = queue[0];
    memmove(queue, queue + 1, sizeof(event_t) * (size_t)--queued);
    return OK;
}
