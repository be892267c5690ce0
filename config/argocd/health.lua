-- The health of a CachePool, a CacheEntry or a CacheFlush, for Argo CD.
local status = obj.status or {}

if status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "The operator has not seen this change yet"}
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

-- The first that is True decides. A flush that has failed is Stalled, one that is complete is Ready.
for _, rule in ipairs({
  {"Stalled", "Degraded"},
  {"Suspended", "Suspended"},
  {"Ready", "Healthy"},
}) do
  local condition = conditions[rule[1]]
  if condition ~= nil and condition.status == "True" then
    return {status = rule[2], message = condition.message or ""}
  end
end

local ready = conditions.Ready or {}
return {status = "Progressing", message = ready.message or ""}
