/* A small libnvidia-ml.so.1: two GPUs, enough of NVML for the real Python binding to read them.
 *
 * The first answers everything; the second has no ECC, no row remapping, no NVLink, no counters of its own (GPM).
 * With -DOLD the calls that newer drivers brought are missing. The control functions (fake_*) are called by tests through
 * ctypes. Signatures and structures: NVML API reference. */
#include <string.h>
#include <stdint.h>

typedef int ret_t;
typedef unsigned long long u64;
enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, INSUFFICIENT = 7,
       TIMEOUT = 10, GPU_IS_LOST = 15, VERSION_MISMATCH = 25 };

struct gpu { int index; int lost; unsigned busy; u64 ecc, reasons; int mig; };
struct slice { struct gpu *parent; unsigned id; };
static struct gpu gpus[2] = {{0, 0, 37, 0, 0, 0}, {1, 0, 5, 0, 0, 0}};
static struct slice slices[2] = {{&gpus[0], 1}, {&gpus[0], 5}};
static int count = 2, gone, permitted = 1, calls, samples_in_use, gpm_step, swapped;
static const char *driver = "580.65.06";

typedef struct { struct gpu *device; u64 type, data; unsigned gi, ci; } event_t;
static event_t queue[2048];
static int queued, events_in_use;
static u64 registered[2];

static void push(int gpu, u64 type, u64 data, unsigned gi) {
    if (!(registered[gpu] & type) || queued == 2048) return;
    queue[queued++] = (event_t){&gpus[gpu], type, data, gi, 0xFFFFFFFFu};
}
void fake_xid(int gpu, unsigned xid) { push(gpu, 8, xid, 0xFFFFFFFFu); }
void fake_xid_of_slice(int gpu, unsigned xid, unsigned gi) { push(gpu, 8, xid, gi); }
void fake_event(int gpu, u64 type, u64 data) { push(gpu, type, data, 0xFFFFFFFFu); }
u64 fake_registered(int gpu) { return registered[gpu]; }
void fake_lose(int gpu, int lost) { gpus[gpu].lost = lost; }
void fake_busy(int gpu, unsigned percent) { gpus[gpu].busy = percent; }
void fake_ecc(int gpu, u64 errors) { gpus[gpu].ecc = errors; }
void fake_throttle(int gpu, u64 reasons) { gpus[gpu].reasons = reasons; }
void fake_mig(int gpu, int on) { gpus[gpu].mig = on; }
void fake_count(int n) { count = n; }
void fake_swap(int on) { swapped = on; }
void fake_gone(int on) { gone = on; }
void fake_driver(int newer) { driver = newer ? "590.11.01" : "580.65.06"; }
void fake_permitted(int on) { permitted = on; }
int fake_events_in_use(void) { return events_in_use; }
int fake_samples_in_use(void) { return samples_in_use; }
int fake_calls(void) { int n = calls; calls = 0; return n; }

#define ALIVE(g) do { calls++; if (gone) return UNINITIALIZED; if ((g)->lost) return GPU_IS_LOST; } while (0)
#define FIRST_ONLY(g) do { ALIVE(g); if ((g)->index != 0) return NOT_SUPPORTED; } while (0)

ret_t nvmlInitWithFlags(unsigned flags) { (void)flags; calls++; gone = queued = 0; registered[0] = registered[1] = 0; return OK; }
ret_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
ret_t nvmlShutdown(void) { calls++; return OK; }
ret_t nvmlSystemGetDriverVersion(char *out, unsigned n) { calls++; strncpy(out, driver, n); return OK; }
ret_t nvmlDeviceGetCount_v2(unsigned *n) { calls++; if (gone) return UNINITIALIZED; *n = (unsigned)count; return OK; }
ret_t nvmlDeviceGetHandleByIndex_v2(unsigned index, struct gpu **out) {
    calls++;
    if ((int)index >= count) return INVALID;
    *out = &gpus[index];
    return OK;
}
ret_t nvmlDeviceGetUUID(struct gpu *g, char *out, unsigned n) {
    ALIVE(g);
    strncpy(out, g->index == 0 ? (swapped ? "GPU-cccc" : "GPU-aaaa") : "GPU-bbbb", n);
    return OK;
}
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci_t;
ret_t nvmlDeviceGetPciInfo_v3(struct gpu *g, pci_t *out) {
    ALIVE(g);
    memset(out, 0, sizeof *out);
    strcpy(out->bus_id, g->index == 0 ? "00000000:3B:00.0" : "00000000:86:00.0");
    return OK;
}

/* ------------------------------------------------------------------------------------------------------- readings */
ret_t nvmlDeviceGetUtilizationRates(struct gpu *g, unsigned out[2]) { ALIVE(g); out[0] = g->busy; out[1] = 12; return OK; }
ret_t nvmlDeviceGetMemoryInfo(struct gpu *g, u64 out[3]) {
    ALIVE(g);
    out[0] = 80ull << 30; out[1] = 60ull << 30; out[2] = 20ull << 30; /* total, free, used */
    return OK;
}
#ifndef OLD
typedef struct { unsigned version; u64 total, reserved, free, used; } memory_v2_t;
static int is_slice(void *p) { return p == &slices[0] || p == &slices[1]; }
ret_t nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2_t *out) {
    if (is_slice(device)) {
        struct slice *s = device;
        ALIVE(s->parent);
        *out = (memory_v2_t){out->version, 10ull << 30, 0, (10ull - s->id) << 30, (u64)s->id << 30};
        return OK;
    }
    struct gpu *g = device;
    ALIVE(g);
    *out = (memory_v2_t){out->version, 80ull << 30, 1ull << 30, 60ull << 30, 19ull << 30};
    return OK;
}
typedef struct { unsigned version; int sensor, celsius; } temperature_t;
ret_t nvmlDeviceGetTemperatureV(struct gpu *g, temperature_t *t) { ALIVE(g); t->celsius = t->sensor == 0 ? 62 : 0; return OK; }
typedef struct { unsigned version; int celsius; } margin_t;
ret_t nvmlDeviceGetMarginTemperature(struct gpu *g, margin_t *m) { ALIVE(g); m->celsius = 27; return OK; }
ret_t nvmlDeviceGetCurrentClocksEventReasons(struct gpu *g, u64 *r) { ALIVE(g); *r = g->reasons; return OK; }
#endif
ret_t nvmlDeviceGetPowerUsage(struct gpu *g, unsigned *mw) { ALIVE(g); *mw = 312500; return OK; }
ret_t nvmlDeviceGetTemperature(struct gpu *g, int sensor, unsigned *c) { ALIVE(g); *c = sensor == 0 ? 61 : 0; return OK; }
ret_t nvmlDeviceGetTemperatureThreshold(struct gpu *g, int which, unsigned *c) { ALIVE(g); *c = which == 0 ? 95 : 89; return OK; }
ret_t nvmlDeviceGetClockInfo(struct gpu *g, int clock, unsigned *mhz) { ALIVE(g); *mhz = clock == 1 ? 1755 : 2619; return OK; }
ret_t nvmlDeviceGetCurrentClocksThrottleReasons(struct gpu *g, u64 *r) { ALIVE(g); *r = g->reasons; return OK; }
ret_t nvmlDeviceGetCurrPcieLinkWidth(struct gpu *g, unsigned *n) { ALIVE(g); *n = g->index == 0 ? 16 : 8; return OK; }
ret_t nvmlDeviceGetMaxPcieLinkWidth(struct gpu *g, unsigned *n) { ALIVE(g); *n = 16; return OK; }
ret_t nvmlDeviceGetCurrPcieLinkGeneration(struct gpu *g, unsigned *n) { ALIVE(g); *n = 4; return OK; }
ret_t nvmlDeviceGetMaxPcieLinkGeneration(struct gpu *g, unsigned *n) { ALIVE(g); *n = 5; return OK; }
ret_t nvmlDeviceGetRowRemapperHistogram(struct gpu *g, unsigned out[5]) {
    FIRST_ONLY(g);
    out[0] = 500; out[1] = 10; out[2] = 1; out[3] = 1; out[4] = 0;
    return OK;
}
ret_t nvmlDeviceGetSramEccErrorStatus(struct gpu *g, void *out) {
    FIRST_ONLY(g);
    if (*(unsigned *)out != 0x1000068) return VERSION_MISMATCH;
    memset((char *)out + 4, 0, 0x68 - 4);
    *(u64 *)((char *)out + 32) = 2;     /* volatileUncParity */
    *(u64 *)((char *)out + 40) = 3;     /* volatileUncSecDed */
    *(unsigned *)((char *)out + 96) = 1; /* bThresholdExceeded */
    return OK;
}
ret_t nvmlDeviceGetNvLinkState(struct gpu *g, unsigned link, unsigned *up) {
    FIRST_ONLY(g);
    if (link > 3) return INVALID;
    *up = link != 2;
    return OK;
}
ret_t nvmlDeviceGetGpuFabricInfoV(struct gpu *g, unsigned *out) {
    FIRST_ONLY(g);
    if (out[0] != 0x02000024) return VERSION_MISMATCH; /* knows the second version only */
    memset(out + 1, 0, 0x24 - 4);
    *(unsigned *)((char *)out + 28) = 3; /* state: completed; its status stays 0 */
    return OK;
}
ret_t nvmlDeviceGetPersistenceMode(struct gpu *g, unsigned *on) {
    ALIVE(g);
    if (!permitted) return NO_PERMISSION;
    *on = 1;
    return OK;
}

/* --------------------------------------------------------------------------------------------------------- fields */
typedef struct { uint32_t id, scope; int64_t at, latency; uint32_t type, ret;
                 union { double d; unsigned ui; unsigned long ul; u64 ull; long long sll; int si; unsigned short us; } v; } field_t;
static int field(struct gpu *g, field_t *f) {
    f->type = 3;
    switch (f->id) {
        case 3: f->v.ull = 0; return g->index == 0;
        case 4: f->v.ull = g->ecc; return g->index == 0;
        case 5: f->v.ull = 1000; return g->index == 0;
        case 6: f->v.ull = 4; return g->index == 0;
        case 59: f->v.ull = 6; return g->index == 0;
        case 75: f->v.ull = 123456789; return 1;
        case 82: f->type = 1; f->v.ui = 71; return 1;
        case 94: f->type = 1; f->v.ui = 7; return 1;
        case 142: f->type = 1; f->v.ui = 1; return g->index == 0;
        case 143: f->type = 1; f->v.ui = 2; return g->index == 0;
        case 144: f->type = 1; f->v.ui = 1; return g->index == 0;
        case 145: f->type = 1; f->v.ui = 0; return g->index == 0;
        case 190: f->type = 1; f->v.ui = 700000; return 1;
        case 208: f->v.ull = f->scope == 0xFFFFFFFFu ? 18 : 1; return g->index == 0;
        case 220: f->v.ull = 0x50F; return g->index == 0; /* 5e-15 */
        case 230: f->type = 6; f->v.us = 0; return 1;
    }
    return 0;
}
ret_t nvmlDeviceGetFieldValues(struct gpu *g, int n, field_t *out) {
    ALIVE(g);
    for (int i = 0; i < n; i++) {
        memset(&out[i].v, 0, sizeof out[i].v);
        out[i].ret = field(g, &out[i]) ? OK : NOT_SUPPORTED;
    }
    return OK;
}

/* ----------------------------------------------------------------------------------------- instances and processes */
ret_t nvmlDeviceGetMigMode(struct gpu *g, unsigned *now, unsigned *pending) { FIRST_ONLY(g); *now = *pending = (unsigned)g->mig; return OK; }
ret_t nvmlDeviceGetMaxMigDeviceCount(struct gpu *g, unsigned *n) { FIRST_ONLY(g); *n = 7; return OK; }
ret_t nvmlDeviceGetMigDeviceHandleByIndex(struct gpu *g, unsigned index, struct slice **out) {
    FIRST_ONLY(g);
    if (index != 0 && index != 3) return NOT_FOUND;
    *out = &slices[index == 3];
    return OK;
}
ret_t nvmlDeviceGetGpuInstanceId(struct slice *s, unsigned *id) { ALIVE(s->parent); *id = s->id; return OK; }
typedef struct { unsigned pid; u64 used; unsigned gi, ci; } process_t;
ret_t nvmlDeviceGetComputeRunningProcesses_v3(struct gpu *g, unsigned *n, process_t *out) {
    ALIVE(g);
    if (g->index != 0) { *n = 0; return OK; }
    if (*n < 3) { *n = 3; return INSUFFICIENT; }
    *n = 3;
    out[0] = (process_t){101, 4ull << 30, g->mig ? 5 : 0xFFFFFFFFu, 0xFFFFFFFFu};
    out[1] = (process_t){102, 2ull << 30, 0xFFFFFFFFu, 0xFFFFFFFFu};
    out[2] = (process_t){103, 1ull << 30, 0xFFFFFFFFu, 0xFFFFFFFFu};
    return OK;
}
typedef struct { unsigned version, supported; } gpm_support_t;
ret_t nvmlGpmQueryDeviceSupport(struct gpu *g, gpm_support_t *out) { ALIVE(g); out->supported = g->index == 0; return OK; }
ret_t nvmlGpmSampleAlloc(int **out) { static int places[64]; static int next; calls++; *out = &places[next++ % 64]; samples_in_use++; return OK; }
ret_t nvmlGpmSampleFree(int *s) { (void)s; calls++; samples_in_use--; return OK; }
ret_t nvmlGpmSampleGet(struct gpu *g, int *s) { FIRST_ONLY(g); *s = ++gpm_step; return OK; }
ret_t nvmlGpmMigSampleGet(struct gpu *g, unsigned gi, int *s) { FIRST_ONLY(g); (void)gi; *s = ++gpm_step; return OK; }
typedef struct { unsigned id; ret_t ret; double value; char *names[3]; } gpm_metric_t;
typedef struct { unsigned version, n; int *one, *two; gpm_metric_t metrics[4]; } gpm_get_t;
ret_t nvmlGpmMetricsGet(gpm_get_t *ask) {
    calls++;
    for (unsigned i = 0; i < ask->n; i++) {
        ask->metrics[i].ret = *ask->two > *ask->one ? OK : INVALID; /* older sample first, or it is no reading */
        ask->metrics[i].value = 10.0 * (i + 1);
    }
    return OK;
}

/* --------------------------------------------------------------------------------------------------------- events */
ret_t nvmlEventSetCreate(void **set) { static int the_set; calls++; *set = &the_set; events_in_use++; return OK; }
ret_t nvmlEventSetFree(void *set) { (void)set; calls++; events_in_use--; return OK; }
ret_t nvmlDeviceGetSupportedEventTypes(struct gpu *g, u64 *types) { ALIVE(g); *types = g->index == 0 ? 0xFFFF : 0x8; return OK; }
ret_t nvmlDeviceRegisterEvents(struct gpu *g, u64 types, void *set) { (void)set; ALIVE(g); registered[g->index] = types; return OK; }
ret_t nvmlEventSetWait_v2(void *set, event_t *out, unsigned timeout_ms) {
    (void)set; (void)timeout_ms;
    calls++;
    if (!queued) return TIMEOUT;
    *out = queue[0];
    memmove(queue, queue + 1, sizeof(event_t) * (size_t)--queued);
    return OK;
}
