// What torch's C++ asks of a CUDA device before autograd may run on tensors that say they lie on one.
// A CPU build has no answers; these are the least that do: a device for each process of a job, one stream, nothing ever to be waited for.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/csrc/distributed/c10d/reducer_timer.hpp>

#include <cstdlib>

namespace {

c10::DeviceIndex number(const char* variable, int otherwise) {
  const char* value = std::getenv(variable);
  return static_cast<c10::DeviceIndex>(value == nullptr ? otherwise : std::atoi(value));
}

struct Guard final : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> {
  c10::Device exchangeDevice(c10::Device) const override { return device(); }
  c10::Device getDevice() const override { return device(); }
  c10::Stream getStream(c10::Device) const noexcept override { return stream(); }
  c10::Stream getNewStream(c10::Device, int) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream(); }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }

  static c10::Device device() { return {c10::DeviceType::CUDA, number("LOCAL_RANK", 0)}; }
  c10::DeviceIndex deviceCount() const noexcept override { return number("LOCAL_WORLD_SIZE", 1); }
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, device()); }
};

C10_REGISTER_GUARD_IMPL(CUDA, Guard);

}  // namespace

namespace at {

// Found by this name.
struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return number("LOCAL_WORLD_SIZE", 1); }
  DeviceIndex getCurrentDevice() const override { return number("LOCAL_RANK", 0); }
};

REGISTER_CUDA_HOOKS(CUDAHooks);

}  // namespace at

namespace c10d {
namespace {

// What DistributedDataParallel writes into its log; nobody reads it here.
struct NoTimer final : Timer {
  explicit NoTimer(c10::Device) {}
  std::optional<int64_t> measureDifference(Event, Event) override { return std::nullopt; }
};

C10_REGISTER_TYPED_CLASS(TimerRegistry, c10::kCUDA, NoTimer);

}  // namespace
}  // namespace c10d
